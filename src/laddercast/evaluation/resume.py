"""Lists of fits that end in tables: each is kept as it is done, and a later run goes on from there.

A table's file is named after all that its numbers depend on. What another ladder, other settings or
other versions gave has another name, and is not read.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import fields
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data.ladder import Ladder
from laddercast.data.settings import as_list, whole
from laddercast.data.temporary import write_whole
from laddercast.data.writing import counted
from laddercast.inference.fitting import RECORDED
from laddercast.inference.many import each_result
from laddercast.model.priors import Priors
from laddercast.model.routes import ROUTES, Route, as_route

KEPT = re.compile(r"[0-9a-f]{64}\.parquet|\.[0-9a-f]{64}\.parquet\.\d+\.part")
"""Names of our files, whole or cut short."""


def table_of_each(
    ladders: Sequence[Ladder],
    then: Sequence[Callable[[xr.DataTree], pd.DataFrame]],
    *,
    seeds: Sequence[int],
    resume: str | Path | None,
    about: Sequence[Any],
    done: Callable[[int, pd.DataFrame], None],
    executor: Executor | int | None = None,
    **settings: Any,
) -> list[pd.DataFrame]:
    """The table that `then` makes of the fit of each ladder, in their order.

    With a folder to `resume`, it is read there if an equal run has left it, and kept there once it
    is made. `about` tells, in values that JSON has, what a table depends on beside its ladder, seed
    and settings. `done` is called with the number and table of each as it comes. Settings as
    `fit_each` takes them. Raises ValueError where `resume` meets a route of the user's own, of
    which nobody can tell whether it has changed.
    """
    names = [""] * len(ladders)
    if resume is not None:
        resume, of_settings = Path(resume).expanduser(), _told(settings)
        names = [
            _name(ladder, of_settings, [whole(seed), more])
            for ladder, seed, more in zip(ladders, seeds, about, strict=True)
        ]
    found = {}
    for number, name in enumerate(names):
        if resume is not None and (table := _read(resume / name)) is not None:
            found[number] = table
            done(number, table)
    if found:
        print(
            f"{len(found)} of {counted(len(ladders), 'fit')} kept by an earlier run in {resume}; "
            "what it warned of is not repeated",
            file=sys.stderr,
        )
    left = [number for number in range(len(ladders)) if number not in found]
    made = each_result(
        [ladders[number] for number in left],
        [then[number] for number in left],
        seeds=[seeds[number] for number in left],
        executor=executor,
        **settings,
    )
    for at, table in made:
        found[left[at]] = table
        if resume is not None:
            _keep(table, resume / names[left[at]])
        done(left[at], table)
    return [found[number] for number in range(len(ladders))]


def clear_kept(folder: Path) -> None:
    """Remove the tables kept in a folder, and the folder if it has nothing else."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if KEPT.fullmatch(path.name):
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _name(ladder: Ladder, settings: Mapping[str, Any], about: Any) -> str:
    known = {
        "ladder": ladder.fingerprint,
        "settings": settings,
        "about": about,
        "versions": {name: version(name) for name in RECORDED},
    }
    text = json.dumps(known, sort_keys=True, default=repr)  # what no fit takes is refused later
    return hashlib.sha256(text.encode()).hexdigest() + ".parquet"


def _told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as values that JSON has, but for those that change no number."""
    told: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "route" and value is not None:
            told[name] = [_route(one) for one in as_list(value)]
        elif isinstance(value, Ladder):
            told[name] = value.fingerprint
        elif isinstance(value, Priors):
            told[name] = {prior.name: _prior(getattr(value, prior.name)) for prior in fields(value)}
        elif name != "progress":
            told[name] = whole(value)
    return told


def _route(given: Route | str) -> str:
    route = as_route(given)
    if ROUTES.get(route.name) != route:
        raise ValueError(
            f"resume: only with routes of this package, as nobody can tell whether {route.name} "
            "has changed since; leave `resume` out"
        )
    return route.name


def _prior(prior: Any) -> list[Any]:
    values = {name: np.asarray(getattr(prior, name)).tolist() for name in prior.arg_constraints}
    return [type(prior).__name__, values]


def _read(path: Path) -> pd.DataFrame | None:
    """The table, or None where there is none or it is damaged."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError):
        return None


def _keep(table: pd.DataFrame, path: Path) -> None:
    memory = BytesIO()
    table.to_parquet(memory)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, memory.getvalue())
