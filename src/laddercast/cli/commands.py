"""The command line. Imports of what is slow to load stand inside the commands, for `--help`."""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from laddercast.cli import compare
from laddercast.cli.allocate import add_allocate
from laddercast.cli.failures import BAD_INPUT, tell
from laddercast.cli.folders import check_file, folder_name, results_folder
from laddercast.cli.plan import add_plan
from laddercast.cli.printing import print_beside, print_forecast, print_rows, print_scores
from laddercast.cli.steps import (
    FITTED,
    MARK,
    NOT_CONVERGED,
    check_files,
    figures,
    inputs,
    names_of_models,
    read,
    save_figure,
    settings,
    status_of,
    unconverged,
)
from laddercast.data import words as c
from laddercast.data.bounds import MOST_SEED, MOST_STEPS
from laddercast.data.cautions import NotConvergedWarning, SkippedWarning, warn
from laddercast.data.loaders.presets import FORMATS
from laddercast.data.paths import no_file
from laddercast.data.temporary import MANIFEST, clear, foreign, record, written_in
from laddercast.data.writing import STYLES, counted, nearest, no_such
from laddercast.sampling.interrupts import insisting

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from laddercast.data.ladder import Ladder

UNFIT, INTERRUPTED = 1, 130
MOST_WORKERS = 1024

UNFINISHED = "unfinished"
"""Folder in that of the results, with what a list of fits has given until all are done."""

INPUTS = ("ladder.csv", "tasks.csv", "targets.csv", "truth.csv")
TABLES = ("forecast.csv", "scores.csv")
DECIDED = (
    "plan.csv", "plan.json", "allocation.csv", "allocation.json", "goal.csv", "goal.json",
    "comparisons.csv", "ranking.csv",
)  # fmt: skip
"""What a report reads of decisions."""

BACKTEST = ("backtest.png", "how_much.csv", MARK)

ROUTES = ("two_stage", "by_reference", "direct", "chain", "stage_1")
FOLDS = (
    "sizes", "lengths", "one-size", "one-task", "reruns", "largest-size", "longest-runs",
)  # fmt: skip
"""As the functions of `routes` and the kinds of `cut_folds` are called, slow to import."""

MEASURED_AND_TRUTH = (
    "truth: what the laws that made the targets give. measured: what an evaluation of the trained "
    "model would show, which is off the truth by the noise of its run and questions, and by how "
    "the laws bend beyond the ladder. Intervals are for what is measured: of honest ones about 8 "
    "of 10 hold it at 80 %. The truth is shown to tell the two kinds of misses apart."
)

PATHS = ("LADDER", "TARGETS", "TASKS", "FILE", "CANDIDATES")
"""Metavars of arguments that are files."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, 1 if `doctor` finds faults, 2 for bad input, 3 if the sampler did
    not converge, 4 for failures inside, 130 for ^C.
    """
    args = _parser().parse_args(argv)
    try:
        with insisting(), _plain_warnings():
            if "ladder" in args:
                check_files(args)  # before a command imports what takes seconds
            return int(args.command(args))
    except Exception as error:
        return tell(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="laddercast",
        description="Forecast a large language model's task accuracy, with credible intervals, "
        "from a ladder of small ones.",
        epilog="Exit status: 0 if all went well; 1 if `doctor` finds what would stop a fit; 2 for "
        "bad input; 3 if the sampler did not converge (results are written, and marked by "
        f"{MARK}); 4 for failures that are not known to be of the input; 130 if interrupted.",
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    out = argparse.ArgumentParser(add_help=False)
    out.add_argument(
        "--out", type=folder_name, required=True, metavar="DIR",
        help="folder of the results, made if absent; those of earlier runs are replaced",
    )  # fmt: skip
    ladder = argparse.ArgumentParser(add_help=False)
    ladder.add_argument("ladder", metavar="LADDER", help="CSV, Parquet or JSON lines: model, "
                        "params, tokens, task, and accuracy, loss or both; or logs")  # fmt: skip
    ladder.add_argument("--from", dest="format", choices=FORMATS, metavar="FORMAT", help="what "
                        "LADDER, a folder or file of logs, was written by: "
                        f"{', '.join(FORMATS)}")  # fmt: skip
    ladder.add_argument("--manifest", metavar="FILE", help="with --from: table of what the logs "
                        "lack: model, params, tokens, and run if it has another name")  # fmt: skip
    ladder.add_argument("--preset", metavar="FILE", help="with --from wandb: TOML that says what "
                        "the keys of the log mean")  # fmt: skip
    ladder.add_argument("--metric", action="append", metavar="METRIC", help="with --from lm-eval "
                        "or olmes: the metric that is the accuracy; with lm-eval also TASK=METRIC, "
                        "and more than once")  # fmt: skip
    ladder.add_argument("--recipe", help="the recipe to keep of a table (also of TARGETS) "
                        "or, with --from olmes, of logs")  # fmt: skip
    ladder.add_argument("--tasks", metavar="TASKS", help="table of the tasks used: task, chance, "
                        "items; or names, with commas between; may be left out if the ladder has "
                        "them")  # fmt: skip
    ladder.add_argument("--rungs", choices=("last", "every"), default="last", help="whether only "
                        "the end of each run speaks for the laws, or every checkpoint "
                        "(default: %(default)s)")  # fmt: skip
    targets = argparse.ArgumentParser(add_help=False)
    targets.add_argument("--targets", metavar="TARGETS", help="table of the models to forecast: "
                         "model, params, tokens; with task, loss, accuracy they are scored; the "
                         "ladder's own measurements of them are not fitted")  # fmt: skip
    targets.add_argument("--hold-out", dest="held_out", nargs="+", metavar="MODEL", help="do not "
                         "fit these models of the ladder, with spaces or commas between; they are "
                         "the targets where there are no TARGETS")  # fmt: skip
    sampler, of_folds = _sampler(draws=1000), _sampler(draws=500)

    def command(
        name: str, run: Any, text: str, *parents: Any, bad: str = "2 bad input, 3 not converged"
    ) -> Any:
        added = commands.add_parser(
            name, help=text, description=f"{text}.", parents=parents,
            epilog=f"Exit status: 0 done, {bad}, 4 failure inside, 130 interrupted.",
        )  # fmt: skip
        added.set_defaults(command=run)
        return added

    command("demo", _demo, "forecast from a simulated ladder, beside the truth", out, sampler)
    command(
        "forecast", _forecast, "fit a ladder and forecast targets", ladder, targets, out, sampler
    )
    text = "compare a ladder's recipes at the targets' scale: which is better, and how surely"
    command("compare", compare.run, text, ladder, targets, out, sampler)
    text = "forecast with the published point fits"
    command("baseline", _baseline, text, ladder, targets, out, bad="2 bad input")
    text = "hold out rungs, fit the others, forecast those held out, score"
    added = command("backtest", _backtest, text, ladder, out, of_folds)
    added.add_argument("--folds", type=_folds, metavar="KINDS", help="how the ladder is cut, with "
                       "commas between: sizes, lengths (from all below a cut to all above), "
                       "one-size, one-task (a task with few rungs), reruns, largest-size, "
                       "longest-runs (the two quick ones); default: sizes,lengths")  # fmt: skip
    added.add_argument("--hold-out", nargs="+", metavar="MODEL", help="hold out these models; "
                       "without --folds, nothing else")  # fmt: skip
    _add_workers(added)
    added.add_argument("--how-much", metavar="TARGETS", help="also forecast these measured targets "
                       "from ever less of the ladder (how_much.csv)")  # fmt: skip
    add_plan(command, ladder, targets, out, sampler)
    add_allocate(command, ladder, out, sampler)
    text = "write one HTML file of a forecast: what to expect, what to doubt and why"
    added = command("report", _report, text)
    added.add_argument(
        "folder",
        type=folder_name,
        metavar="DIR",
        help="what `forecast --out` or `compare --out` "
        "wrote; what `plan` and `allocate` wrote there is shown, too",
    )
    added.add_argument("--backtest", type=folder_name, metavar="DIR", help="what `backtest --out` "
                       "wrote, of the same ladder (default: the first DIR, if it has "
                       "one)")  # fmt: skip
    added.add_argument("--out", type=folder_name, metavar="FILE", help="default: report.html in "
                       "the first DIR")  # fmt: skip
    text = "show versions, devices and folders, and what would stop a fit; exit status 1 then"
    added = command("doctor", _doctor, text, bad="1 faults found, 2 bad input")
    added.add_argument("--licences", action="store_true", help="list the packages that laddercast "
                       "needs, with their licences, and nothing else")  # fmt: skip
    text = "print a shell's completion script"
    added = command("completion", _completion, text, bad="2 bad input")
    added.epilog = (
        f"{added.epilog} "
        'bash: eval "$(laddercast completion bash)" in ~/.bashrc. zsh: laddercast completion zsh '
        "> _laddercast in a folder of $fpath. fish: laddercast completion fish > "
        "~/.config/fish/completions/laddercast.fish"
    )
    added.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the nearest name that would be right."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        if unknown:
            given = unknown[0].partition("=")[0]
            near = nearest(given, _options(self)) if given.startswith("-") else None
            message = f"no such argument: {' '.join(unknown)}" + _meant(near)
        self.exit(BAD_INPUT, f"error: {message}; see `{self.prog} --help`\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = ", ".join(map(str, action.choices))
        meant = _meant(nearest(str(value), map(str, action.choices)))
        raise argparse.ArgumentError(action, f"no such choice: {value}{meant} choose from {known}")


def _meant(near: str | None) -> str:
    return f"; did you mean {near}?" if near else ";"


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """The options of a parser and of its commands."""
    found: list[str] = []
    for action in parser._actions:
        found += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                found += _options(inner)
    return found


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from laddercast import __version__

        print(f"laddercast {__version__}")
        parser.exit()


def _whole(least: int, most: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or len(text) > 30 or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"{text[:40]!r}: give a whole number from {least} to {most}"
            )
        return int(text)

    return whole


def _folds(text: str) -> list[str]:
    kinds = [kind.strip() for kind in text.split(",")]
    if unknown := [kind for kind in kinds if kind not in FOLDS]:
        raise argparse.ArgumentTypeError(no_such("fold", unknown, FOLDS))
    return kinds


def _demo(args: argparse.Namespace) -> int:
    from laddercast.evaluation.simulation import demo_ladder

    simulated = "SIMULATED: no real model was trained or measured"
    print(f"{simulated}. Tasks are called after the benchmarks whose published laws theirs follow.")
    ladder, targets, truth = demo_ladder(args.seed)
    with results_folder(args.out, (*INPUTS, *TABLES, *FITTED)) as folder:
        ladder.table.to_csv(folder / "ladder.csv", index=False)
        ladder.tasks.to_csv(folder / "tasks.csv")
        targets.to_csv(folder / "targets.csv", index=False)
        truth.to_csv(folder / "truth.csv")
        status = _fit_and_forecast(args, ladder, targets, folder, "law_accuracy")
    print(MEASURED_AND_TRUTH)
    print(
        "One seed says little of honesty: over 24, 80 % intervals held 56 % of what was measured "
        "and 95 % intervals 78 % (`python benchmarks/demo_seeds.py --count 24` in a checkout). "
        "This truth bends more than the priors expect."
    )
    print(f"{simulated}.")
    return status


def _forecast(args: argparse.Namespace) -> int:
    ladder, targets = read(args)
    with results_folder(args.out, (*TABLES, *FITTED), inputs(args)) as folder:
        return _fit_and_forecast(args, ladder, targets, folder)


def _fit_and_forecast(
    args: argparse.Namespace,
    ladder: "Ladder",
    targets: "pd.DataFrame",
    folder: Path,
    truth: str | None = None,
) -> int:
    """`truth` names a column of the targets that is shown beside the forecast."""
    from laddercast.decisions.questions import headline
    from laddercast.evaluation.backtests import published
    from laddercast.forecasting.averages import with_average
    from laddercast.forecasting.forecasts import forecast, forecast_table
    from laddercast.inference.fitting import fit
    from laddercast.inference.results import diagnose
    from laddercast.inference.saving import save
    from laddercast.sampling.programs import keep as keep_compiled

    keep_compiled()
    fitted = fit(ladder, **settings(args))
    save(fitted, folder / "fit.nc")
    result = forecast(fitted, targets, seed=args.seed)
    save(result, folder / "predictions.nc")
    table = forecast_table(result)
    table.to_csv(folder / "forecast.csv", index=False)
    points = None
    if ladder.several_recipes:
        text = f"published method left out, as {ladder.name} has several recipes"
        warn(text, SkippedWarning)
    elif c.measured(ladder.table, c.LOSS) or c.measured(ladder.table, c.REFERENCE_LOSS):
        with warnings.catch_warnings():
            # A task that the published method cannot fit has no point.
            warnings.simplefilter("ignore")
            points = published(ladder, targets)
        points.to_csv(folder / "published.csv", index=False)
    else:
        text = f"published method left out, as {ladder.name} has no losses"
        warn(text, SkippedWarning)
    known = None if truth is None else targets.rename(columns={truth: "truth"})
    print_forecast(with_average(result, table), known)
    for first in headline(result, fitted):
        print(first.answer, first.trust)
    if table["measured"].notna().any():
        _score(result, points, folder)
    save_figure(lambda: figures().plot_forecast(result, points), folder / "forecast.png")
    return status_of(result.attrs["complaints"], folder, diagnose(result))


def _baseline(args: argparse.Namespace) -> int:
    import pandas as pd

    from laddercast.baselines.published import baseline, has_losses
    from laddercast.evaluation.scores import UNITS

    ladder, targets = read(args)
    with results_folder(args.out, TABLES, inputs(args)) as folder:
        if has_losses(ladder):
            table = baseline(ladder, targets)
        else:
            warn(
                "no losses were measured, which the other published methods go through: "
                "single_step alone is fitted", SkippedWarning,
            )  # fmt: skip
            table = baseline(ladder, targets, "single_step")
        if table["q50"].isna().all():
            raise ValueError(
                f"{ladder.name}: no published method can be fitted to any task, as the warnings "
                "say; add rungs, or use `laddercast forecast`, for which two are enough"
            )
        table.to_csv(folder / "forecast.csv", index=False)
        known = table.dropna(subset=["q50", "measured"])
        error = (known["q50"] - known["measured"]).abs() * known["quantity"].map(UNITS).astype(
            float
        )
        cells = known.assign(error=error)
        cells = pd.concat([cells, cells.assign(task=c.ALL)])
        groups = cells.groupby(["method", "quantity", c.TASK], sort=False)["error"]
        scores = groups.agg(cells="size", error="mean").reset_index()
        if len(scores):
            scores.to_csv(folder / "scores.csv", index=False)
        quantity = c.main_quantity(table)
        style, shown = STYLES[quantity], table[table["quantity"] == quantity]
        cell = [c.MODEL, c.TASK]
        methods = shown.groupby("method", sort=False)
        beside = pd.concat({name: x.set_index(cell)["q50"] for name, x in methods}, axis=1)
        beside["measured"] = shown.groupby(cell)["measured"].first()
        rows = [
            [*names, *map(style.value, values)] for names, *values in beside.itertuples(name=None)
        ]
        print_rows(["target", "task", *beside], rows)
        for row in c.overall(scores).to_dict("records"):
            print(
                f"{row['method']}: mean absolute error {style.error(row['error'])}"
                f"{style.of_errors}, {counted(row['cells'], 'cell')}"
            )
    return 0


def _backtest(args: argparse.Namespace) -> int:
    from laddercast.evaluation.backtest_files import write_backtest
    from laddercast.evaluation.backtests import backtest, how_much_ladder
    from laddercast.evaluation.resume import clear_kept
    from laddercast.inference.executors import executor_for
    from laddercast.inference.suspicions import of_data, warn_of
    from laddercast.sampling.programs import keep as keep_compiled

    keep_compiled()
    ladder, targets = read(args, args.how_much, needed=False)
    unfinished = args.out / UNFINISHED
    with (
        executor_for(args.workers, args.scheduler) as executor,
        results_folder(args.out, (*TABLES, *BACKTEST), inputs(args)) as folder,
    ):
        held_out = args.hold_out and names_of_models(args.hold_out, ladder.models)
        warn_of(ladder.name, of_data(ladder))
        given = settings(args) | {"executor": executor, "resume": unfinished}
        table = backtest(ladder, folds=args.folds, hold_out=held_out, **given)
        scores = write_backtest(table, folder)
        save_figure(lambda: figures().plot_calibration(table)[0], folder / "backtest.png")
        print_beside(c.overall(scores))
        folds = table.assign(fold=table["kind"] + " (" + table["fold"] + ")")
        failed = [f"the fold {name}" for name in unconverged(folds, "fold")]
        if targets is not None:
            enough = how_much_ladder(ladder, targets, **given)
            enough.to_csv(folder / "how_much.csv", index=False)
            print()
            overall = enough[enough[c.TASK] == c.ALL]
            more = {"80 % width": ("width80", ""), "compute": ("share", ".1%")}
            quantity = c.ACCURACY if c.measured(ladder.table, c.ACCURACY) else c.LOSS
            more["80 % width"] = ("width80", f".{STYLES[quantity].digits}f")
            print_scores(overall, "ladder", more, quantity)
            failed += [f"the ladder cut to {name}" for name in unconverged(enough, "ladder")]
        status = status_of(", ".join(failed), folder)
    clear_kept(unfinished)
    return status


def _report(args: argparse.Namespace) -> int:
    given = [path for path in (args.folder, args.backtest) if path is not None]
    if absent := [no_file(path, "folder") for path in given if not path.is_dir()]:
        raise ValueError("\n".join(absent))
    needed = [args.folder / name for name in ("predictions.nc", "fit.nc")]
    if absent := [f"{path} is missing" for path in needed if not path.exists()]:
        cure = "`laddercast forecast ... --out DIR` writes both"
        raise ValueError(f"{'; '.join(absent)}: {cure}")
    figures()
    from laddercast.evaluation.backtest_files import holds_backtest, read_backtest
    from laddercast.inference.results import converged
    from laddercast.reporting.decisions import read_decisions
    from laddercast.reporting.page import NAME, is_report, read_published, read_results, report

    out = args.out or args.folder / NAME
    folders = {args.folder, args.backtest or args.folder}
    inputs = (*TABLES, *DECIDED, "fit.nc", "predictions.nc", MANIFEST)
    check_file(out, [folder / name for folder in folders for name in inputs], is_report)
    with suppress(OSError):  # of a folder that can only be read
        clear(args.folder)
    forecasted, fitted = read_results(args.folder)
    folder = args.backtest or args.folder
    table = read_backtest(folder) if args.backtest or holds_backtest(folder) else None
    try:
        points = read_published(args.folder)
        decided = read_decisions(args.folder, forecasted)._asdict()
        print(report(forecasted, fitted, out, backtest=table, baseline=points, **decided))
    except Exception as error:
        changed = foreign(args.folder, ["fit.nc", "predictions.nc"])
        if isinstance(error, OSError) or not (changed and written_in(args.folder)):
            raise
        raise ValueError(
            f"{args.folder}: {' and '.join(changed)} has changed since it was written, and is "
            "damaged; run `laddercast forecast` again"
        ) from error
    if written_in(out.parent):
        record(out)
    if (known := converged(forecasted)) is None:
        print("not known to have converged: the file does not say", file=sys.stderr)
        return NOT_CONVERGED
    if known:
        return 0
    complaints = forecasted.attrs.get("complaints", "")
    print(f"not converged, do not rely on these results: {complaints}", file=sys.stderr)
    return NOT_CONVERGED


def _doctor(args: argparse.Namespace) -> int:
    if args.licences:
        from laddercast.cli.licences import licences

        print_rows(["package", "version", "licence"], licences(), left=3)
        return 0
    from laddercast.cli.doctor import examine

    findings, faults = examine()
    width = max(len(name) for name, _ in findings)
    for name, finding in findings:
        print(f"{name.ljust(width)}  {finding}")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if not faults:
        print("nothing here stops a fit")
    return UNFIT if faults else 0


def _completion(args: argparse.Namespace) -> int:
    import shtab

    parser = _parser()
    _complete_paths(parser, {"DIR": shtab.DIRECTORY} | dict.fromkeys(PATHS, shtab.FILE))
    print(shtab.complete(parser, args.shell))
    return 0


def _sampler(draws: int) -> argparse.ArgumentParser:
    """The arguments that `fit` takes, with this default."""
    sampler = argparse.ArgumentParser(add_help=False)
    group = sampler.add_argument_group("sampler")
    group.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    group.add_argument("--route", choices=ROUTES, nargs="+", help="routes from params and tokens "
                       "to accuracy (default: those that the ladder has the measurements for, "
                       "pooled)")  # fmt: skip
    for name, value in (("seed", 0), ("chains", 4), ("warmup", 300), ("draws", draws)):
        bounds = (0, MOST_SEED) if name == "seed" else (1, MOST_STEPS)
        group.add_argument(f"--{name}", type=_whole(*bounds), default=value, metavar="N",
                           help="default: %(default)s")  # fmt: skip
    return sampler


def _add_workers(parser: argparse.ArgumentParser) -> None:
    """The arguments that say where lists of fits are made."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--workers", type=_whole(1, MOST_WORKERS), metavar="N", help="fit in N "
                       "processes on this machine, replaced where one is killed (default: in this "
                       "process)")  # fmt: skip
    group.add_argument("--scheduler", metavar="ADDRESS", help="fit on the workers of the Dask "
                       "scheduler there, as tcp://host:8786")  # fmt: skip


def _complete_paths(parser: argparse.ArgumentParser, words: dict[str, Any]) -> None:
    """Say to shtab which arguments, by what their value is called, are files and folders."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_paths(inner, words)
        elif action.metavar in words:
            action.complete = words[str(action.metavar)]  # type: ignore[attr-defined]


@contextmanager
def _plain_warnings() -> Iterator[None]:
    def show(message: Warning | str, *_: Any) -> None:
        print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        # Said once, at the end, with the exit status.
        warnings.simplefilter("ignore", NotConvergedWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _score(result: "xr.DataTree", points: "pd.DataFrame | None", folder: Path) -> None:
    from laddercast.evaluation.scores import score

    scores = score(result)
    scores.to_csv(folder / "scores.csv", index=False)
    found, quantity = c.overall(scores), c.main_quantity(scores)
    style = STYLES[quantity]
    for row in found.to_dict("records"):
        shares = [row[f"cover{level}"] for level in c.INTERVALS]
        inside = " / ".join(f"{round(share * row['cells'])}" for share in shares)
        print(
            f"{row['cells']} measured {style.plural}: mean absolute error "
            f"{style.error(row['error'])}{style.of_errors}, CRPS {style.error(row['crps'])}"
            f"{style.of_errors}; inside the 50 / 80 / 95 % interval: {inside}"
        )
    if points is None:
        return
    point = points[points["quantity"] == quantity]
    error = (style.factor * (point["q50"] - point["measured"])).abs()
    if error.notna().any():
        print(f"published method: mean absolute error {style.error(error.mean())}{style.of_errors}")
