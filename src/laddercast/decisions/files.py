"""Files of decisions: what commands write, and reports read back."""

import json
from pathlib import Path

import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.decisions.recipes import COMPARISONS, RANKING, RecipeComparison
from laddercast.decisions.rungs import PLAN_COLUMNS
from laddercast.inference.results import converged

FINGERPRINT = "fingerprint"

NEEDED = {
    "plan": set(PLAN_COLUMNS),
    "allocation": {c.FLOPS, c.PARAMS, c.TOKENS, "regret_q50", "regret_q90", "in_set"},
    "goal": {c.FLOPS, c.PARAMS, c.TOKENS, "probability"},
}
"""Columns without which a file is not what its name says."""


def write_decision(table: pd.DataFrame, folder: Path, name: str, fitted: xr.DataTree) -> None:
    """Write `<name>.csv`, and beside it `<name>.json`: what was asked, and of which ladder."""
    table.to_csv(folder / f"{name}.csv", index=False)
    about = {"converged": int(bool(converged(fitted)))} | table.attrs
    about[FINGERPRINT] = str(fitted.attrs.get(FINGERPRINT, ""))
    text = json.dumps(about, indent=1, sort_keys=True)
    (folder / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def read_decision(folder: str | Path, name: str) -> pd.DataFrame | None:
    """The table `plan`, `allocation` or `goal` that a command wrote, with its attributes.

    None where there is none. Raises ValueError for a file that is not of a command.
    """
    path = Path(folder) / f"{name}.csv"
    if not path.exists():
        return None
    try:
        table = pd.read_csv(path)
        table.attrs = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} and its .json cannot be read ({why}); {_cure(name)}") from None
    if lacking := sorted(NEEDED[name] - set(table)):
        raise ValueError(f"{path} lacks {', '.join(lacking)}; {_cure(name)}")
    return table.astype({"order": "Int64"}) if name == "plan" else table


def read_goal(folder: str | Path) -> pd.Series | None:
    """The goal that `laddercast allocate --accuracy` wrote, as `flops_for` gives it, or None."""
    table = read_decision(folder, "goal")
    if table is None:
        return None
    found = table[[c.FLOPS, c.PARAMS, c.TOKENS, "probability"]].iloc[0]
    found.attrs = table.attrs
    return found


def read_comparison(folder: str | Path, forecast: xr.DataTree) -> RecipeComparison | None:
    """What `laddercast compare --out folder` wrote, of this forecast; None where there is none."""
    tables = []
    for name, columns in (("comparisons", COMPARISONS), ("ranking", RANKING)):
        path = Path(folder) / f"{name}.csv"
        if not path.exists():
            return None
        # A recipe may be called NA.
        texts = dict.fromkeys((c.TASK, c.RECIPE, "a", "b"), str)
        table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
        if lacking := sorted(set(columns) - set(table)):
            cure = "`laddercast compare ... --out DIR` writes it"
            raise ValueError(f"{path} lacks {', '.join(lacking)}; {cure}")
        tables.append(table)
    comparisons, ranking = tables
    return RecipeComparison(comparisons, ranking.astype({"rank": "Int64"}), forecast)


def _cure(name: str) -> str:
    command = "plan" if name == "plan" else "allocate"
    return f"`laddercast {command} ... --out DIR` writes both, or move them away"
