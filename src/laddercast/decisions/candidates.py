"""Small models that could be trained next: read and checked, or a grid of sizes and lengths."""

from pathlib import Path

import numpy as np
import pandas as pd

from laddercast.data import words as c
from laddercast.data.checks import check_columns, check_target_rows
from laddercast.data.faults import stop_on
from laddercast.data.sizes import flops, with_flops
from laddercast.data.sources import read_table
from laddercast.data.writing import listed, short_number

OWN_SIZES = 6
"""Sizes of the ladder that a grid has, evenly in logs where there are more."""
LENGTHS = 14
"""Lengths of a grid, evenly in logs."""
LONGER = 2.0
"""A grid reaches so many times beyond the range of tokens per parameter of ladder and targets."""

SMALLEST = 256
"""A ladder is designed of sizes down to a target's over this."""
DESIGN_TOKENS_PER_PARAM = (5, 10, 20, 40, 80, 160, 320)


def read_candidates(
    source: str | Path | pd.DataFrame, rungs: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Candidates with `model, params, tokens, flops` and, where given, `checkpoints`.

    Raises ValueError that names every fault, as for targets; and for those that are among `rungs`.
    """
    faults: list[str] = []
    table, name = read_table(source, "candidates", faults)
    stop_on(faults)
    if c.MODEL not in table:
        table = table.assign(**{c.MODEL: [f"candidate {i + 1}" for i in range(len(table))]})
    table = check_columns(table, (c.MODEL, c.PARAMS, c.TOKENS), name, faults)
    table = check_target_rows(table, name, faults)
    stop_on(faults)
    if rungs is not None and (known := _known(table, rungs)).any():
        shown = [f"{x.model} ({_named(x)})" for x in table[known].itertuples()]
        raise ValueError(
            f"{name}: {listed(shown, 10)}: the ladder has a run of that size and length; leave "
            "them out"
        )
    given = table[c.FLOPS] if c.FLOPS in table else pd.Series(np.nan, index=table.index)
    if not (given.isna() | ((given > 0) & np.isfinite(given))).all():
        raise ValueError(f"{name}: flops must be finite numbers above 0")
    (table,) = with_flops(table)
    return table.reset_index(drop=True)


def candidate_grid(rungs: pd.DataFrame, targets: pd.DataFrame, budget: float) -> pd.DataFrame:
    """Sizes of the ladder and larger ones, lengths up to the targets': none larger than a target.

    Tokens per parameter lie within some times the range that ladder and targets have. Those that
    the ladder has are left out.
    """
    largest, longest = float(targets[c.PARAMS].max()), float(targets[c.TOKENS].max())
    own = np.unique(rungs[c.PARAMS].to_numpy(float))
    if len(own) > OWN_SIZES:
        own = own[np.unique(np.linspace(0, len(own) - 1, OWN_SIZES).astype(int))]
    sizes = [n for n in own if n <= largest]
    while sizes and 2 * sizes[-1] <= largest:
        sizes.append(2 * sizes[-1])
    shortest = min(float(rungs[c.TOKENS].min()), longest)
    both = pd.concat([rungs[[c.PARAMS, c.TOKENS]], targets[[c.PARAMS, c.TOKENS]]])
    ratio = both[c.TOKENS] / both[c.PARAMS]
    # What nobody can pay is left out first, or few lengths would be left of the others.
    most = min(longest, budget / flops(min(sizes, default=largest), 1.0))
    lengths = np.geomspace(shortest, max(most, shortest), LENGTHS)
    table = _grid(sizes, lengths)
    own_ratio = table[c.TOKENS] / table[c.PARAMS]
    table = table[own_ratio.between(ratio.min() / LONGER, ratio.max() * LONGER)]
    return _cheap_first(table[~_known(table, rungs)], targets)


def design_grid(targets: pd.DataFrame, budget: float) -> pd.DataFrame:
    """Sizes and lengths of a ladder for these targets, within the budget."""
    largest = float(targets[c.PARAMS].max())
    sizes = largest / 2.0 ** np.arange(1, np.log2(SMALLEST) + 1)
    table = pd.concat([_grid([n], n * np.array(DESIGN_TOKENS_PER_PARAM)) for n in sizes])
    within = table[table[c.FLOPS] <= budget]
    return _cheap_first(within if len(within) else table, targets)


def candidates_for(
    rungs: pd.DataFrame,
    targets: pd.DataFrame,
    budget: float,
    source: str | Path | pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Candidates within the budget: those given, or a grid. Raises ValueError where there are none.

    And for targets that the ladder has reached.
    """
    _check_targets(targets, rungs)
    if source is not None:
        return affordable(read_candidates(source, rungs), budget)
    return affordable(candidate_grid(rungs, targets, budget), budget)


def affordable(candidates: pd.DataFrame, budget: float) -> pd.DataFrame:
    """Those within the budget, as the others cannot be chosen."""
    within = candidates[candidates[c.FLOPS] <= budget * (1 + 1e-9)].reset_index(drop=True)
    if within.empty:
        least = candidates.loc[candidates[c.FLOPS].idxmin()]
        raise ValueError(
            f"a budget of {budget:.3g} FLOPs buys none of {len(candidates)} candidates: the "
            f"cheapest, {short_number(least[c.PARAMS])} on {short_number(least[c.TOKENS])} tokens, "
            f"takes {least[c.FLOPS]:.3g}; give more, or smaller candidates"
        )
    return within


def check_plan(
    budget: float, count: int, task: str | None, tasks: list[str], most: float = np.inf
) -> None:
    """Raise ValueError for a budget, a count or a task that nothing can be planned with."""
    faults = []
    if not (np.isfinite(budget) and budget > 0):
        faults.append(f"budget={budget}: give a number above 0")
    elif budget > most:
        faults.append(f"budget={budget}: give a share of the target's compute, at most {most:g}")
    if count < 1:
        faults.append(f"count={count}: give a whole number of at least 1")
    if task not in (None, c.ALL, *tasks):
        faults.append(f"task={task!r}: give one of {', '.join(tasks)}, or {c.ALL}, or none")
    stop_on(faults)


def _check_targets(targets: pd.DataFrame, rungs: pd.DataFrame) -> None:
    """Raise ValueError for targets that the ladder has reached, in size and in length."""
    reached = [
        f"target {target.model} ({_named(target)})"
        for target in targets.drop_duplicates(c.MODEL).itertuples()
        if ((rungs[c.PARAMS] >= target.params) & (rungs[c.TOKENS] >= target.tokens)).any()
    ]
    stop_on(
        [
            f"{listed(reached, 10)}: the ladder has a rung that is as large and trained for as "
            "long; a plan is for targets beyond the ladder"
        ]
        if reached
        else []
    )


def _grid(sizes: "list[float] | np.ndarray", lengths: np.ndarray) -> pd.DataFrame:
    rows = [(round(n), int(float(f"{d:.1e}"))) for n in sizes for d in lengths]
    table = pd.DataFrame(rows, columns=[c.PARAMS, c.TOKENS]).drop_duplicates()
    table[c.FLOPS] = flops(table[c.PARAMS].astype(float), table[c.TOKENS].astype(float))
    table[c.MODEL] = [_named(row) for row in table.itertuples()]
    return table


def _cheap_first(candidates: pd.DataFrame, targets: pd.DataFrame) -> pd.DataFrame:
    """In order of compute, without those that take as much as the largest target."""
    most = flops(targets[c.PARAMS].astype(float), targets[c.TOKENS].astype(float)).max()
    table = candidates[candidates[c.FLOPS] < most].sort_values(c.FLOPS, kind="stable")
    if table.empty:
        raise ValueError(
            "no size and length lies between the ladder and the targets; give candidates"
        )
    return table.reset_index(drop=True)


def _known(table: pd.DataFrame, rungs: pd.DataFrame) -> np.ndarray:
    """Whether the ladder has a run of this size and length, to a per mille."""
    n, d = (
        np.log(table[word].to_numpy(float))[:, None] - np.log(rungs[word].to_numpy(float))
        for word in (c.PARAMS, c.TOKENS)
    )
    return np.asarray(((np.abs(n) < 1e-3) & (np.abs(d) < 1e-3)).any(axis=1))


def _named(row: object) -> str:
    params, tokens = (float(getattr(row, word)) for word in (c.PARAMS, c.TOKENS))
    return f"{short_number(params)}-{short_number(tokens)}"
