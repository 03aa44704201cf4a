"""The command `allocate`: how large a model, how long a run, at one budget of compute."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from laddercast.cli.steps import (
    figures,
    inputs,
    number,
    read_ladder_of,
    save_figure,
    settings,
    status_of,
)
from laddercast.data import words as c
from laddercast.data.writing import STYLES, listed, short_number

if TYPE_CHECKING:
    import pandas as pd

FILES = ("allocation.csv", "allocate.png", "NOT_CONVERGED.txt")

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Sizes, over the best one, of which the price is printed."""


def add_allocate(command: Callable[..., Any], *parents: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "fit a ladder, and tell how large a model and how long a run are best at a budget"
    added = command("allocate", _allocate, text, *parents)
    added.add_argument("--flops", type=number, required=True, metavar="FLOPS", help="the budget: "
                       "6 N D to train and, with --tokens-served, 2 N T to serve")  # fmt: skip
    added.add_argument("--tokens-served", type=number, default=0.0, metavar="T", help="tokens "
                       "that the budget is to serve, too (default: none)")  # fmt: skip
    added.add_argument("--task", default=c.ALL, metavar="NAME", help="the task whose accuracy is "
                       "to be best; all: the mean over tasks; loss: the mean loss (default: "
                       "%(default)s)")  # fmt: skip
    added.add_argument("--epsilon", type=number, metavar="E", help="a difference that does not "
                       "matter: a fraction of accuracy, a share of a loss "
                       "(default: 0.005)")  # fmt: skip


def _allocate(args: argparse.Namespace) -> int:
    from laddercast.cli.folders import results_folder
    from laddercast.decisions.allocation import EPSILON, allocate, check_budget
    from laddercast.inference.fitting import fit
    from laddercast.inference.results import diagnose
    from laddercast.sampling.programs import keep as keep_compiled

    keep_compiled()
    ladder = read_ladder_of(args)
    # Before a fit, which takes its time.
    check_budget(ladder, args.flops, args.tokens_served, args.task)
    with results_folder(args.out, FILES, inputs(args)) as folder:
        fitted = fit(ladder, **settings(args))
        table = allocate(
            fitted, args.flops, task=args.task, tokens_served=args.tokens_served,
            epsilon=EPSILON if args.epsilon is None else args.epsilon, seed=args.seed,
        )  # fmt: skip
        table.to_csv(folder / "allocation.csv", index=False)
        save_figure(lambda: figures().plot_allocation(table)[0], folder / "allocate.png")
        print_allocation(table)
        return status_of(fitted.attrs["complaints"], folder, diagnose(fitted))


def print_allocation(table: "pd.DataFrame") -> None:
    """The sizes that are as good as the best, the best with its interval, the price of others."""
    from laddercast.cli.printing import print_rows

    attrs, style = table.attrs, STYLES[table.attrs["quantity"]]
    loss = attrs["quantity"] == c.LOSS
    unit = "%" if loss else "points"
    what = {c.ALL: f"mean {attrs['quantity']} over tasks", c.LOSS: "mean loss"}.get(
        attrs["task"], f"{attrs['quantity']} of {attrs['task']}"
    )
    chosen = table[table["in_set"]]
    if len(chosen):
        sizes = " to ".join(dict.fromkeys(short_number(n) for n in _ends(chosen[c.PARAMS])))
        tokens = " to ".join(dict.fromkeys(short_number(d) for d in _ends(chosen[c.TOKENS])))
        print(
            f"{what}: within {100 * attrs['epsilon']:g} {unit} of the best with probability "
            f"{attrs['probability']:g}: {sizes} params ({tokens} tokens)"
        )
    else:
        print(f"{what}: no size is surely within {100 * attrs['epsilon']:g} {unit} of the best")
    best = attrs["optimum"]
    print(
        f"best size: {short_number(best[c.PARAMS]['q50'])} params (90 %: "
        f"{short_number(best[c.PARAMS]['q05'])} to {short_number(best[c.PARAMS]['q95'])}), "
        f"{best['tokens_per_param']['q50']:.3g} tokens per parameter "
        f"({best['tokens_per_param']['q05']:.3g} to {best['tokens_per_param']['q95']:.3g})"
    )
    if attrs["at_chance"]:
        print(f"at chance in all rungs: {listed(attrs['at_chance'], 10)}")
    rows = []
    for factor in FACTORS:
        wanted = factor * attrs["best"][c.PARAMS]
        if not table[c.PARAMS].min() <= wanted * 1.1 or not wanted <= 1.1 * table[c.PARAMS].max():
            continue
        row = table.loc[(table[c.PARAMS] / wanted - 1).abs().idxmin()]
        values = (row[f"{attrs['quantity']}_{name}"] for name in ("q50", "q10", "q90"))
        middle, low, high = (style.value(value) for value in values)
        rows.append(
            [f"{factor:g} x best", short_number(row[c.PARAMS]), short_number(row[c.TOKENS]),
             middle, f"{low} to {high}", f"{100 * row['regret_q50']:.2f}",
             f"{100 * row['regret_q90']:.2f}"]
        )  # fmt: skip
    print_rows(
        ["size", "params", "tokens", attrs["quantity"] + style.unit, "80 % of runs",
         f"regret ({unit})", "90 % below"], rows, left=1,
    )  # fmt: skip


def _ends(values: "pd.Series") -> tuple[float, float]:
    return float(values.min()), float(values.max())
