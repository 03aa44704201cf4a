"""From measurements of small language models to credible intervals for a big one's accuracy."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laddercast import datasets
    from laddercast.averages import mean_over_tasks
    from laddercast.backtest import backtest, how_much_ladder, score_backtest
    from laddercast.baseline import baseline
    from laddercast.fit_each import fit_each
    from laddercast.forecast import forecast, forecast_table
    from laddercast.inference import fit
    from laddercast.ladder import Ladder, read_ladder, read_targets
    from laddercast.loaders.lm_eval import read_lm_eval
    from laddercast.loaders.olmes import read_olmes
    from laddercast.loaders.presets import Keys, Preset, Size
    from laddercast.loaders.wandb import read_wandb
    from laddercast.model import by_reference, chain, direct, two_stage
    from laddercast.noise import metric_noise, noise_by_task, rerun_noise
    from laddercast.plots import (
        plot_calibration,
        plot_forecast,
        plot_iso_accuracy,
        plot_noise,
        plot_stage1,
        plot_stage2,
        plot_what_if,
    )
    from laddercast.pool import pool
    from laddercast.priors import Priors
    from laddercast.report import report
    from laddercast.rivals import best_rung, bootstrap, lowest_loss_rung
    from laddercast.score import score
    from laddercast.simulate import demo_ladder, simulate
    from laddercast.what_if import what_if

    __version__: str

__all__ = [
    "Keys",
    "Ladder",
    "Preset",
    "Priors",
    "Size",
    "__version__",
    "backtest",
    "baseline",
    "best_rung",
    "bootstrap",
    "by_reference",
    "chain",
    "datasets",
    "demo_ladder",
    "direct",
    "fit",
    "fit_each",
    "forecast",
    "forecast_table",
    "how_much_ladder",
    "lowest_loss_rung",
    "mean_over_tasks",
    "metric_noise",
    "noise_by_task",
    "plot_calibration",
    "plot_forecast",
    "plot_iso_accuracy",
    "plot_noise",
    "plot_stage1",
    "plot_stage2",
    "plot_what_if",
    "pool",
    "read_ladder",
    "read_lm_eval",
    "read_olmes",
    "read_targets",
    "read_wandb",
    "report",
    "rerun_noise",
    "score",
    "score_backtest",
    "simulate",
    "two_stage",
    "what_if",
]

_MODULE = {
    "Keys": "loaders.presets",
    "Ladder": "ladder",
    "Preset": "loaders.presets",
    "Priors": "priors",
    "Size": "loaders.presets",
    "best_rung": "rivals",
    "bootstrap": "rivals",
    "by_reference": "model",
    "chain": "model",
    "demo_ladder": "simulate",
    "direct": "model",
    "fit": "inference",
    "forecast_table": "forecast",
    "how_much_ladder": "backtest",
    "lowest_loss_rung": "rivals",
    "mean_over_tasks": "averages",
    "metric_noise": "noise",
    "noise_by_task": "noise",
    "read_ladder": "ladder",
    "read_lm_eval": "loaders.lm_eval",
    "read_olmes": "loaders.olmes",
    "read_targets": "ladder",
    "read_wandb": "loaders.wandb",
    "rerun_noise": "noise",
    "score_backtest": "backtest",
    "two_stage": "model",
}
"""Where each public name lives; of the others, `plot_*` in plots, the rest in its namesake."""

_SUBMODULES = ("datasets",)
"""Public names that are modules."""


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a submodule binds it here: where a public function has its name, that one stays.
        if isinstance(value, ModuleType) and name in __all__ and name not in _SUBMODULES:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def _mend_numpyro() -> None:
    # `import arviz` leaves a lazy NumPyro behind. Where a submodule is then the first thing that is
    # touched, NumPyro loads twice, and its subpackages lose the submodules bound to them.
    if "numpyro" in sys.modules:
        getattr(sys.modules["numpyro"], "__version__", None)  # loads it, if it was lazy
        for name, module in list(sys.modules.items()):
            parent, _, child = name.rpartition(".")
            if name.startswith("numpyro.") and not hasattr(sys.modules[parent], child):
                setattr(sys.modules[parent], child, module)


_mend_numpyro()


def __getattr__(name: str) -> Any:
    """Load public names on first use (PEP 562): imports are slow, and `--help` needs none."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("laddercast")
    elif name in _SUBMODULES:
        value = import_module(f"{__name__}.{name}")
    else:
        _mend_numpyro()
        home = "plots" if name.startswith("plot_") else _MODULE.get(name, name)
        value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, loaded or not."""
    return sorted(set(globals()) | set(__all__))
