"""The command `plan`: which small models to train next, to know the targets better."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from laddercast.cli.steps import (
    MARK,
    figures,
    inputs,
    keep_mark,
    number,
    read,
    save_figure,
    settings,
    status_of,
)
from laddercast.data import words as c

if TYPE_CHECKING:
    import pandas as pd

FILES = ("plan.csv", "plan.json", "plan.png", MARK)

TIMES = 4
"""So many times as many questions are told of."""


def add_plan(command: Callable[..., Any], *parents: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "fit a ladder, and tell which small models to train next to know the targets better"
    added = command("plan", _plan, text, *parents)
    added.add_argument("--budget", type=number, required=True, metavar="FLOPS", help="training "
                       "compute of all that is chosen")  # fmt: skip
    added.add_argument("--candidates", metavar="CANDIDATES", help="table of models that could be "
                       "trained: params, tokens; flops if not 6ND, checkpoints averaged by a "
                       "measurement (default: sizes and lengths up to the targets')")  # fmt: skip
    added.add_argument("--count", type=int, metavar="N", help="models chosen, at most (default: "
                       "10)")  # fmt: skip
    added.add_argument("--task", metavar="NAME", help="the task whose forecast is to become "
                       "narrower; all: the mean over tasks (default: each task alike)")  # fmt: skip


def _plan(args: argparse.Namespace) -> int:
    from laddercast.cli.folders import results_folder
    from laddercast.data.sizes import whole_runs
    from laddercast.decisions.candidates import candidates_for, check_plan
    from laddercast.decisions.files import write_decision
    from laddercast.decisions.items import more_items
    from laddercast.decisions.rungs import MOST_RUNGS, plan_rungs
    from laddercast.inference.fitting import fit
    from laddercast.inference.results import diagnose
    from laddercast.sampling.programs import keep as keep_compiled

    keep_compiled()
    ladder, targets = read(args)
    count = MOST_RUNGS if args.count is None else args.count
    rungs = whole_runs(ladder.table)
    # Before a fit, which takes its time.
    check_plan(args.budget, count, args.task, list(ladder.tasks.index))
    candidates_for(rungs, targets, args.budget, args.candidates)
    with results_folder(args.out, FILES, inputs(args)) as folder:
        keep_mark(folder)
        fitted = fit(ladder, **settings(args))
        plan = plan_rungs(
            fitted, targets, budget=args.budget, candidates=args.candidates, task=args.task,
            count=count, seed=args.seed,
        )  # fmt: skip
        write_decision(plan, folder, "plan", fitted)
        save_figure(lambda: figures().plot_plan(plan, rungs, targets)[0], folder / "plan.png")
        print_plan(plan)
        if c.measured(ladder.table, c.ACCURACY):
            print()
            print_items(more_items(fitted, targets, times=[TIMES], seed=args.seed))
        return status_of(fitted.attrs["complaints"], folder, diagnose(fitted))


def print_plan(plan: "pd.DataFrame") -> None:
    """The rungs chosen, in order, and the SD of the targets' forecast before and after each."""
    from laddercast.cli.printing import print_table
    from laddercast.decisions.answers import plan_sentence
    from laddercast.reporting.decisions import plan_table

    print(plan_sentence(plan))
    if (table := plan_table(plan)).rows:
        print_table(table)


def print_items(table: "pd.DataFrame") -> None:
    """What more questions would buy, a row a target and task."""
    from laddercast.cli.printing import print_rows

    print(f"80 % width in points, now and with {TIMES} times as many questions")
    rows = [
        [
            row[c.MODEL], row[c.TASK],
            *(f"{row[x]:.1f}" for x in ("width80_now", "width80_target", "width80")),
            f"{row['equivalent_items']:.0f}",
        ]
        for row in table.to_dict("records")
    ]  # fmt: skip
    print_rows(["target", "task", "now", "of the target", "of all", "as uncertain as"], rows)
    print("as uncertain as: the forecast now, as an accuracy of so many questions")
