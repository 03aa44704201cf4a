"""A ladder's table, validated once, and the ends of its runs."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from laddercast.data import words as c
from laddercast.data.checks import (
    check_columns,
    check_fittable,
    check_ladder_rows,
    check_target_rows,
    keep_recipe,
)
from laddercast.data.faults import stop_on
from laddercast.data.ladder_display import as_html, as_text
from laddercast.data.lines import Line, line_through, rung_points
from laddercast.data.sizes import whole_runs
from laddercast.data.sources import Table, Tasks, legible, read_table, read_tasks
from laddercast.data.tasks import check_tasks, named_tasks
from laddercast.data.writing import no_such

Rungs = Literal["last", "every"]

END_CHECKPOINTS = 5
"""A run's end is the mean of at most this many last checkpoints (as published)..."""
END_SHARE = 0.9
"""...all of them beyond this share of the run's tokens, so that sparse ones are not mixed in."""
SPREAD_CHECKPOINTS = 10
SPREAD_SHARE = 0.75
"""Checkpoint noise is read from at most 10 last checkpoints in the last quarter of a run."""
WARMUP_SHARE = 0.1
"""`rungs="every"` leaves out each run's first tenth, as the published step 2 does."""


@dataclass(frozen=True, eq=False)
class Ladder:
    """Measurements of small models: one row per model x task x checkpoint.

    `table` has the columns of `words.py` (others are kept), sorted by model, task and tokens;
    `tasks` has one row per task with `chance` and `items`, NaN where not known. `rungs="last"` lets
    the end of each run speak for the laws, `"every"` takes each checkpoint at its own tokens. Both
    tables are given out as copies. Raises ValueError that lists every fault.

    >>> rungs, held_out = ladder.split(max_params=1e9)
    >>> small = rungs.keep(rungs.models[:8])
    """

    table: pd.DataFrame
    tasks: pd.DataFrame
    rungs: Rungs = "last"
    name: str = "ladder"

    def __post_init__(self) -> None:
        """Check everything at once, and keep what was checked."""
        if self.rungs not in ("last", "every"):
            raise ValueError(f'rungs={self.rungs!r}: use "last" or "every"')
        faults: list[str] = []
        table, tasks = self.table, self.tasks
        if not isinstance(table, pd.DataFrame):
            table, _ = read_table(table, self.name, faults)
        else:
            legible(table, self.name, faults)
        if not isinstance(tasks, pd.DataFrame):
            tasks = _chosen(tasks, faults)
        else:
            legible(tasks, "tasks", faults)
        stop_on(faults)
        table = check_columns(table, c.LADDER_REQUIRED, self.name, faults)
        tasks, table = check_tasks(table, tasks, self.name, faults)
        table = check_ladder_rows(table, self.name, faults)
        check_fittable(table, self.name, faults)
        stop_on(faults)
        order = [c.MODEL, c.TASK, c.TOKENS]
        table = table.sort_values(order, kind="stable").reset_index(drop=True)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "tasks", tasks)

    def __getattribute__(self, name: str) -> Any:
        """Tables as shallow copies: what a user writes into one never reaches the ladder."""
        value = object.__getattribute__(self, name)
        return value.copy(deep=False) if isinstance(value, pd.DataFrame) else value

    def __repr__(self) -> str:
        """What was read, and what is missing of it."""
        return as_text(self.table, self.tasks, self.rungs, self.name)

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return as_html(self.table, self.tasks, self.rungs, self.name)

    def __len__(self) -> int:
        """Count the rows of the table."""
        return len(self.table)

    @property
    def models(self) -> list[str]:
        """Names of the models, by params, then by the length of their runs."""
        return list(whole_runs(self.table).sort_values([c.PARAMS, c.TOKENS]).index)

    @property
    def recipes(self) -> list[str]:
        """Names of the recipes, sorted; none where the table has no such column."""
        return sorted(self.table[c.RECIPE].dropna().unique()) if c.RECIPE in self.table else []

    @property
    def several_recipes(self) -> list[str]:
        """Names of the recipes where there are several, which a fit then tells apart."""
        return self.recipes if len(self.recipes) > 1 else []

    @property
    def line(self) -> Line | None:
        """The line in log params and log tokens on which all rungs lie, None if they do not."""
        return line_through(rung_points(self.table, self.rungs))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the values a fit can read, independent of row order and of other columns."""
        table = self.table
        # Chance and items are read from the tasks alone.
        read = [word for word in c.KNOWN if word in table and word not in (c.CHANCE, c.ITEMS)]
        text = table[read].to_csv(index=False) + self.tasks.sort_index().to_csv() + self.rungs
        return hashlib.sha256(text.encode()).hexdigest()

    def to_csv(self, path: str | Path) -> Path:
        """Write one CSV, with `chance` and `items` as columns, that `read_ladder` reads back.

        `rungs` is not in it. Returns the path.
        """
        path = Path(path).expanduser()
        table = self.table.drop(columns=[c.CHANCE, c.ITEMS], errors="ignore")
        table.join(self.tasks, on=c.TASK).to_csv(path, index=False)
        return path

    def keep(self, models: Iterable[str]) -> "Ladder":
        """The ladder of these models alone, validated anew."""
        named = _checked_names(models, self.models)
        table = self.table
        return Ladder(table[table[c.MODEL].isin(named)], self.tasks, self.rungs, self.name)

    def split(
        self,
        max_params: float | None = None,
        max_tokens_per_param: float | None = None,
        hold_out: Iterable[str] = (),
    ) -> tuple["Ladder", pd.DataFrame]:
        """The rungs to fit, and the held-out others as a table of targets with their measurements.

        Held out is every model above `max_params`, with more than `max_tokens_per_param` tokens
        per parameter at its end, or named in `hold_out`.
        """
        table = self.table
        ends = whole_runs(table)
        out = ends.index.isin(_checked_names(hold_out, self.models))
        if max_params is not None:
            out |= (ends[c.PARAMS] > max_params).to_numpy()
        if max_tokens_per_param is not None:
            out |= (ends[c.TOKENS] / ends[c.PARAMS] > max_tokens_per_param * (1 + 1e-9)).to_numpy()
        if out.all() or not out.any():
            ratio = ends[c.TOKENS] / ends[c.PARAMS]
            what = "everything" if out.all() else "nothing"
            raise ValueError(
                f"{self.name}: {what} is held out by this split; "
                f"params run from {ends[c.PARAMS].min()} to {ends[c.PARAMS].max()}, "
                f"tokens per parameter at the end from {ratio.min():.4g} to {ratio.max():.4g}, "
                f"models are {', '.join(self.models)}"
            )
        held_out = table[table[c.MODEL].isin(ends.index[out])]
        return self.keep(ends.index[~out]), as_targets(held_out)


def _checked_names(named: Iterable[str], models: list[str]) -> set[str]:
    # Models with numbers for names are text in the table.
    names = {str(name) for name in ([named] if isinstance(named, str) else named)}
    unknown = sorted(names - set(models))
    if unknown:
        raise ValueError(no_such("model", unknown, models))
    return names


def read_ladder(
    source: Table, tasks: Tasks | None = None, rungs: Rungs = "last", recipe: str | None = None
) -> Ladder:
    """Read a ladder from CSV, Parquet, JSON lines, or a table of any library for DataFrames.

    `tasks` chooses the tasks: a table (`task, chance, items`), names in a list, or in text with
    commas between. What it lacks of chance and items comes from the ladder's own columns, else from
    `known_tasks()`, which the ladder's display then tells. `params` and `tokens` may have units in
    text ("190M"). `recipe` keeps the rows of one. A ladder has accuracies, losses or both; of
    losses alone, no chance is needed. Raises ValueError that names every fault, its row and the
    cure.

    >>> ladder = lc.read_ladder("ladder.csv", tasks="tasks.csv")
    >>> ladder = lc.read_ladder(ladder.table.to_dict("records"), tasks=["piqa"])
    """
    faults: list[str] = []
    table, name = read_table(source, "ladder", faults)
    table = keep_recipe(table, recipe, name, faults)
    chosen = _chosen(tasks, faults)
    if faults:
        # Of two files one may still be legible: its faults belong in the same error.
        if len(table.columns):
            check_ladder_rows(check_columns(table, c.LADDER_REQUIRED, name, faults), name, faults)
        elif len(chosen.columns):
            check_tasks(table, chosen, name, faults)
        stop_on(faults)
    return Ladder(table, chosen, rungs, name)


def _chosen(tasks: Tasks | None, faults: list[str]) -> pd.DataFrame:
    """The table of the tasks asked for, without columns if these are all."""
    names, table = read_tasks(tasks, faults)
    return table if names is None or len(table.columns) else named_tasks(names)


def read_targets(
    source: Table, recipe: str | None = None, tasks: Tasks | None = None
) -> pd.DataFrame:
    """Read targets: `model, params, tokens`, and `task, loss, accuracy, checkpoints` if measured.

    A table as `read_ladder` takes it; one target may be a dict. `recipe` keeps the rows of one,
    where there is such a column, `tasks` (names, or a table of them) those of these tasks. Returns
    one row per model x task (per model, without `task`). Several checkpoints of one model and task
    are one run, whose end is the target. Raises ValueError as `read_ladder` does.

    >>> targets = lc.read_targets("targets.csv")
    >>> target = lc.read_targets({"model": "7B", "params": "6.9B", "tokens": "4T"})
    """
    faults: list[str] = []
    table, name = read_table(source, "targets", faults)
    if c.RECIPE in [str(column).strip() for column in table.columns]:
        table = keep_recipe(table, recipe, name, faults)
    names, _ = read_tasks(tasks, faults)
    stop_on(faults)
    table = check_columns(table, c.TARGET_REQUIRED, name, faults)
    if names is not None and c.TASK in table:
        own = table[c.TASK].astype("str").str.strip()
        if not own.isin(names).any():
            known = ", ".join(sorted(own.dropna().unique()))
            faults.append(f"{name}: no row is of {', '.join(names)}; its tasks are {known}")
        table = table[own.isin(names) | own.isna()]
    table = check_target_rows(table, name, faults)
    stop_on(faults)
    if c.TASK not in table:
        return table.reset_index(drop=True)
    return as_targets(table)


def as_targets(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model x task: the end of each run, with the number of checkpoints averaged."""
    if table.duplicated([c.MODEL, c.TASK]).any():
        ends = run_ends(table)
        quantities = (c.LOSS, c.REFERENCE_LOSS, c.ACCURACY, c.TASK_CE, c.FLOPS)
        measured = [name for name in quantities if name in table]
        more = [c.RECIPE] if c.RECIPE in table else []
        return ends[[c.MODEL, c.PARAMS, c.TOKENS, c.TASK, *more, *measured, c.CHECKPOINTS]]
    return table.assign(**{c.CHECKPOINTS: _checkpoints(table)}).reset_index(drop=True)


def run_ends(table: pd.DataFrame) -> pd.DataFrame:
    """The end of each run per task: one row per model x task, quantities averaged over checkpoints.

    Columns: `model, task, params, tokens, flops, recipe` (of the whole run; the last two where the
    table has them), the quantities, `checkpoints`.
    What was not measured at the end is NaN. A row that is itself a mean has the weight of its
    `checkpoints`. Of the checkpoints of loss and of accuracy the fewer are given.
    """
    last = _last_rows(table, END_CHECKPOINTS, END_SHARE)
    measured = [name for name in (c.LOSS, c.REFERENCE_LOSS, c.ACCURACY, c.TASK_CE) if name in last]
    keys = [last[c.MODEL], last[c.TASK]]
    weight = _checkpoints(last)
    weights = last[measured].notna().mul(weight, axis=0)
    counts = weights.groupby(keys).sum()
    means = last[measured].mul(weight, axis=0).groupby(keys).sum() / counts
    counted = counts[[name for name in measured if name in (c.LOSS, c.ACCURACY)]]
    fewest = counted.where(counted > 0).min(axis=1)
    means[c.CHECKPOINTS] = fewest.fillna(weight.groupby(keys).sum())
    every = table[[c.MODEL, c.TASK]].drop_duplicates().sort_values([c.MODEL, c.TASK])
    whole = {c.PARAMS: "first", c.TOKENS: "max", c.FLOPS: "max", c.RECIPE: "first"}
    ends = table.groupby(c.MODEL).agg({name: how for name, how in whole.items() if name in table})
    joined = every.join(means, on=[c.MODEL, c.TASK]).join(ends, on=c.MODEL)
    return joined.fillna({c.CHECKPOINTS: 1.0}).reset_index(drop=True)


def _checkpoints(table: pd.DataFrame) -> pd.Series:
    if c.CHECKPOINTS in table:
        return table[c.CHECKPOINTS].fillna(1.0).astype(float)
    return pd.Series(1.0, index=table.index)


def checkpoint_spread(table: pd.DataFrame, quantity: str, *, log: bool) -> pd.DataFrame:
    """Variance of `quantity` among a run's last checkpoints about a straight line in tokens.

    One row per model x task with at least 4 checkpoints: `model, task, variance, dof`. With
    `log`, of its natural log.
    """
    last = _last_rows(table.dropna(subset=[quantity]), SPREAD_CHECKPOINTS, SPREAD_SHARE)
    keys = [c.MODEL, c.TASK]
    last = last[last.groupby(keys)[quantity].transform("size") >= 4]
    by_run = last.groupby(keys)
    # Subtract integers: float64 cannot tell tokens above 2**53 apart.
    x = (last[c.TOKENS] - by_run[c.TOKENS].transform("min")).astype(float)
    y = last[quantity].astype(float)
    off = pd.DataFrame({"x": x, "y": np.log(y) if log else y}, index=last.index)
    groups = [last[word] for word in keys]
    off -= off.groupby(groups).transform("mean")
    sums = (off.assign(xx=off["x"] ** 2, xy=off["x"] * off["y"])).groupby(groups).transform("sum")
    residual = off["y"] - off["x"] * sums["xy"] / sums["xx"]
    found = (residual**2).groupby(groups).agg(["sum", "size"]).reset_index()
    dof = found["size"] - 2
    return found[keys].assign(variance=found["sum"] / dof, dof=dof)


def _last_rows(table: pd.DataFrame, count: int, share: float) -> pd.DataFrame:
    end = table.groupby(c.MODEL)[c.TOKENS].transform("max")
    late = table[table[c.TOKENS] >= share * end].sort_values(c.TOKENS, kind="stable")
    return late.groupby([c.MODEL, c.TASK], sort=False).tail(count).sort_index()
