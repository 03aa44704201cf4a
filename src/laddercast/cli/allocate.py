"""The command `allocate`: how large a model, how long a run; what compute a goal takes."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from laddercast.cli.steps import (
    MARK,
    figures,
    inputs,
    keep_mark,
    number,
    read_ladder_of,
    save_figure,
    settings,
    status_of,
)
from laddercast.data import words as c
from laddercast.data.cautions import SkippedWarning, warn

if TYPE_CHECKING:
    import pandas as pd

FILES = (
    "allocation.csv", "allocation.json", "allocate.png", "goal.csv", "goal.json", MARK,
)  # fmt: skip


def add_allocate(command: Callable[..., Any], *parents: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "fit a ladder, and tell how large a model and how long a run are best at a budget"
    added = command("allocate", _allocate, text, *parents)
    added.add_argument("--flops", type=number, metavar="FLOPS", help="the budget: 6 N D to train "
                       "and, with --tokens-served, 2 N T to serve")  # fmt: skip
    added.add_argument("--accuracy", type=number, metavar="A", help="a goal, as a fraction: tell "
                       "the least training compute that reaches it with a probability of 0.9; in "
                       "the place of --flops, or beside it")  # fmt: skip
    added.add_argument("--tokens-served", type=number, default=0.0, metavar="T", help="tokens "
                       "that the budget is to serve, too (default: none)")  # fmt: skip
    added.add_argument("--task", default=c.ALL, metavar="NAME", help="the task whose accuracy is "
                       "to be best; all: the mean over tasks; loss: the mean loss (default: "
                       "%(default)s)")  # fmt: skip
    added.add_argument("--epsilon", type=number, metavar="E", help="a difference that does not "
                       "matter: a fraction of accuracy, a share of a loss "
                       "(default: 0.005)")  # fmt: skip


def _allocate(args: argparse.Namespace) -> int:
    import pandas as pd

    from laddercast.cli.folders import results_folder
    from laddercast.decisions.allocation import EPSILON, allocate, check_allocation, flops_for
    from laddercast.decisions.answers import goal_sentence
    from laddercast.decisions.files import write_decision
    from laddercast.inference.fitting import fit
    from laddercast.inference.results import diagnose
    from laddercast.sampling.programs import keep as keep_compiled

    keep_compiled()
    ladder = read_ladder_of(args)
    # Before a fit, which takes its time.
    check_allocation(
        ladder, args.task, flops=args.flops, accuracy=args.accuracy,
        tokens_served=args.tokens_served,
    )  # fmt: skip
    with results_folder(args.out, FILES, inputs(args)) as folder:
        keep_mark(folder)
        fitted = fit(ladder, **settings(args))
        if args.flops is not None:
            table = allocate(
                fitted, args.flops, task=args.task, tokens_served=args.tokens_served,
                epsilon=EPSILON if args.epsilon is None else args.epsilon, seed=args.seed,
            )  # fmt: skip
            write_decision(table, folder, "allocation", fitted)
            save_figure(lambda: figures().plot_allocation(table)[0], folder / "allocate.png")
            print_allocation(table)
        if args.accuracy is not None:
            try:
                found = flops_for(fitted, accuracy=args.accuracy, task=args.task, seed=args.seed)
            except ValueError as error:
                if args.flops is None:
                    raise
                # The allocation is worth keeping.
                warn(str(error), SkippedWarning)
            else:
                asked = {"task": args.task, "accuracy": args.accuracy}
                goal = pd.DataFrame([asked | found.to_dict()])
                goal = goal.astype({c.PARAMS: "int64", c.TOKENS: "int64"})
                goal.attrs = found.attrs
                write_decision(goal, folder, "goal", fitted)
                print(goal_sentence(found))
        return status_of(fitted.attrs["complaints"], folder, diagnose(fitted))


def print_allocation(table: "pd.DataFrame") -> None:
    """The sizes that are as good as the best, the best with its interval, the price of others."""
    from laddercast.cli.printing import print_table
    from laddercast.decisions.answers import allocation_sentences
    from laddercast.reporting.decisions import allocation_table

    for sentence in allocation_sentences(table):
        print(sentence)
    print_table(allocation_table(table))
