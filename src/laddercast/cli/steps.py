"""What commands share: reading what they are given, settings, figures, the exit status."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laddercast.data import words as c
from laddercast.data.cautions import SkippedWarning, warn
from laddercast.data.loaders.presets import FORMATS
from laddercast.data.paths import is_file, no_file

if TYPE_CHECKING:
    import pandas as pd

    from laddercast.data.ladder import Ladder

NOT_CONVERGED = 3
MARK = "NOT_CONVERGED.txt"
"""Written beside results that must not be relied on."""

FITTED = ("fit.nc", "predictions.nc", "published.csv", "forecast.png", "report.html", MARK)
"""What `forecast` writes, beside tables."""


def number(text: str) -> float:
    """An argument that is a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number") from None


def inputs(args: argparse.Namespace) -> list[str]:
    """The files that a command reads."""
    names = ("ladder", "targets", "tasks", "manifest", "how_much", "candidates")
    return [given for name in names if (given := getattr(args, name, None)) is not None]


def unconverged(table: "pd.DataFrame", column: str) -> list[str]:
    """What in this column has not converged, each once."""
    return list(dict.fromkeys(table.loc[table["converged"] == 0, column]))


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a fit."""
    words = ("seed", "chains", "warmup", "draws", "device")
    settings = {word: getattr(args, word) for word in words}
    if args.route:
        settings["route"] = args.route
    return settings


def read(
    args: argparse.Namespace, source: str | None = None, *, needed: bool = True
) -> tuple["Ladder", Any]:
    """The ladder and the targets (None without), the faults of both in one ValueError.

    Targets are the `source`, or those that the command was given; one of these is `needed`.
    """
    source = source if source is not None else getattr(args, "targets", None)
    held_out = getattr(args, "held_out", None)
    if source is None and not held_out and needed:
        raise ValueError("no targets: give --targets TARGETS, or --hold-out MODEL of the ladder")
    from laddercast.data.ladder import read_targets
    from laddercast.data.sizes import whole_runs
    from laddercast.data.targets import check_targets
    from laddercast.data.tasks import known_sentence

    faults, ladder, targets = [], None, None
    try:
        ladder = read_ladder_of(args)
    except ValueError as error:
        faults.append(str(error))
    # Of the tasks that were chosen: the targets may have others.
    chosen = list(ladder.tasks.index) if ladder is not None and args.tasks else None
    try:
        recipe = args.recipe if args.format is None else None
        targets = None if source is None else read_targets(source, recipe, chosen)
    except ValueError as error:
        faults.append(str(error))
    if ladder is not None and targets is not None:
        try:
            check_targets(targets, whole_runs(ladder.table), ladder.tasks.index, str(source))
        except ValueError as error:
            faults.append(str(error))
    if ladder is None or faults:
        raise ValueError("\n".join(faults))
    if said := known_sentence(ladder.tasks):
        print(said, file=sys.stderr)
    if held_out:
        ladder, measured = ladder.split(hold_out=names_of_models(held_out, ladder.models))
        targets = measured if targets is None else targets
    return ladder if targets is None else _without_targets(ladder, targets), targets


def check_files(args: argparse.Namespace) -> None:
    """Tell of files that do not exist before pandas is imported, which takes a second or more."""
    for word in ("manifest", "preset", "metric"):
        if args.format is None and getattr(args, word):
            raise ValueError(f"--{word}: only with --from ({', '.join(FORMATS)})")
    others = (getattr(args, word, None) for word in ("targets", "how_much", "candidates"))
    given = [args.ladder, args.manifest, args.preset, *others]
    given += [args.tasks] if args.tasks and is_file(args.tasks) else []
    paths = [Path(path).expanduser() for path in given if path]
    if absent := [no_file(path) for path in paths if not path.exists()]:
        raise ValueError("\n".join(absent))


def read_ladder_of(args: argparse.Namespace) -> "Ladder":
    """The ladder, from a table or from logs."""
    from laddercast.data.ladder import read_ladder

    if args.format is None:
        return read_ladder(args.ladder, args.tasks, args.rungs, args.recipe)
    from laddercast.data.loaders.lm_eval import read_lm_eval
    from laddercast.data.loaders.olmes import read_olmes
    from laddercast.data.loaders.wandb import read_wandb

    tool, _, preset = args.format.partition(":")
    tasks = args.tasks
    if args.recipe and tool != "olmes":
        raise ValueError("--recipe: only of tables, and with --from olmes")
    if args.metric and tool == "wandb":
        raise ValueError("--metric: only with --from lm-eval and olmes; a preset names keys")
    if bool(args.preset) != (args.format == "wandb"):
        raise ValueError(f"--from {args.format}: give --preset FILE with --from wandb, and only "
                         "with it")  # fmt: skip
    if tool == "wandb":
        given = preset or Path(args.preset)
        return read_wandb(args.ladder, given, args.manifest, tasks, args.rungs)
    if tool == "lm-eval":
        metric = _metrics(args.metric)
        return read_lm_eval(args.ladder, args.manifest, tasks, args.rungs, metric)
    accuracy = {"accuracy": args.metric[-1]} if args.metric else {}
    return read_olmes(args.ladder, args.manifest, tasks, args.rungs, args.recipe, **accuracy)


def _metrics(words: Sequence[str] | None) -> str | dict[str, str] | None:
    """One metric for all tasks, or TASK=METRIC of some."""
    if not words:
        return None
    pairs = [word.partition("=") for word in words]
    if len(pairs) == 1 and not pairs[0][1]:
        return words[0]
    if not all(mark for _, mark, _ in pairs):
        raise ValueError("--metric: give one METRIC for all tasks, or TASK=METRIC of each")
    return {task: metric for task, _, metric in pairs}


def names_of_models(words: Sequence[str], models: Sequence[str]) -> list[str]:
    """Names of models, given with spaces or commas between."""
    names: list[str] = []
    for word in words:
        names += [word] if word in models else [name for name in word.split(",") if name]
    return names


def _without_targets(ladder: "Ladder", targets: "pd.DataFrame") -> "Ladder":
    """The ladder without what is to be forecast: models measured at or past a target's tokens."""
    ends = ladder.table.groupby(c.MODEL)[c.TOKENS].max()
    known = targets[targets[c.MODEL].isin(ends.index)]
    measured = set(known[c.MODEL][known[c.TOKENS].to_numpy() <= ends[known[c.MODEL]].to_numpy()])
    if not measured:
        return ladder
    names = [model for model in ladder.models if model in measured]
    print(f"targets, not fitted: {', '.join(names)}", file=sys.stderr)
    return ladder.keep(model for model in ladder.models if model not in measured)


def status_of(complaints: str, folder: Path, reasons: "pd.DataFrame | None" = None) -> int:
    """The status of a command; `reasons`, as `diagnose` gives them, are written in full."""
    if not complaints:
        return 0
    text = f"not converged, do not rely on these results: {complaints}"
    table = "" if reasons is None else f"\n{reasons.to_string(index=False)}\n"
    with (folder / MARK).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n{table}")
    more = "" if reasons is None else f"; all reasons in {MARK}"
    print(f"{text}{more}; give more --warmup or --draws, or more rungs", file=sys.stderr)
    return NOT_CONVERGED


def keep_mark(folder: Path) -> None:
    """Keep the mark of a forecast beside which a plan or an allocation is written.

    `folder` is the temporary one inside that of the results.
    """
    results = folder.parent
    if (results / "fit.nc").exists() and (results / MARK).exists():
        (folder / MARK).write_text((results / MARK).read_text(encoding="utf-8"), encoding="utf-8")


def figures() -> Any:
    """The module of figures, which is slow to import."""
    os.environ.setdefault("MPLBACKEND", "Agg")  # files only: no window, no display
    from laddercast import plots

    return plots


def save_figure(draw: Callable[[], Any], path: Path) -> None:
    """Write a figure. Where it fails, tables and fits are worth more than it: a warning says so."""
    try:
        draw().figure.savefig(path, dpi=150)
    except Exception as error:
        path.unlink(missing_ok=True)
        why = " ".join(str(error).split())[:300]
        warn(f"{path.name} was left out: {type(error).__name__}: {why}", SkippedWarning)
