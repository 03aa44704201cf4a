"""From measurements of small language models to credible intervals for a big one's accuracy."""

from typing import TYPE_CHECKING

import lazy_loader as lazy

# Names load on first use (PEP 562): imports are slow, and `--help` needs none.
__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=["baselines", "plots"],
    submod_attrs={
        "_version": ["__version__"],
        "baselines.published": ["baseline"],
        "baselines.resampling": ["bootstrap"],
        "baselines.rungs": ["best_rung", "lowest_loss_rung"],
        "data": ["datasets", "loaders"],
        "data.cautions": [
            "FarTargetWarning",
            "LaddercastWarning",
            "NotConvergedWarning",
            "SkippedWarning",
        ],
        "data.ladder": ["Ladder", "read_ladder", "read_targets"],
        "data.loaders.lm_eval": ["read_lm_eval"],
        "data.loaders.olmes": ["read_olmes"],
        "data.loaders.presets": ["Keys", "Preset", "Size"],
        "data.loaders.wandb": ["read_wandb"],
        "evaluation.backtests": ["backtest", "how_much_ladder", "score_backtest"],
        "evaluation.noise": ["metric_noise", "noise_by_task", "rerun_noise"],
        "evaluation.scores": ["score"],
        "evaluation.simulation": ["demo_ladder", "simulate"],
        "forecasting.averages": ["mean_over_tasks"],
        "forecasting.forecasts": ["forecast", "forecast_table"],
        "forecasting.grids": ["what_if"],
        "forecasting.pools": ["pool"],
        "inference.fitting": ["fit", "numpyro_model"],
        "inference.many": ["fit_each"],
        "inference.results": ["diagnose"],
        "model": ["routes"],
        "model.priors": ["Priors"],
        "model.routes": ["Route", "by_reference", "chain", "direct", "two_stage"],
        "plots.calibration": ["plot_calibration"],
        "plots.grids": ["plot_iso_accuracy", "plot_what_if"],
        "plots.intervals": ["plot_forecast"],
        "plots.noise": ["plot_noise"],
        "plots.stages": ["plot_stage1", "plot_stage2"],
        "reporting.page": ["report"],
    },
)

if TYPE_CHECKING:
    from laddercast import baselines as baselines
    from laddercast import plots as plots
    from laddercast._version import __version__ as __version__
    from laddercast.baselines.published import baseline as baseline
    from laddercast.baselines.resampling import bootstrap as bootstrap
    from laddercast.baselines.rungs import best_rung as best_rung
    from laddercast.baselines.rungs import lowest_loss_rung as lowest_loss_rung
    from laddercast.data import datasets as datasets
    from laddercast.data import loaders as loaders
    from laddercast.data.cautions import FarTargetWarning as FarTargetWarning
    from laddercast.data.cautions import LaddercastWarning as LaddercastWarning
    from laddercast.data.cautions import NotConvergedWarning as NotConvergedWarning
    from laddercast.data.cautions import SkippedWarning as SkippedWarning
    from laddercast.data.ladder import Ladder as Ladder
    from laddercast.data.ladder import read_ladder as read_ladder
    from laddercast.data.ladder import read_targets as read_targets
    from laddercast.data.loaders.lm_eval import read_lm_eval as read_lm_eval
    from laddercast.data.loaders.olmes import read_olmes as read_olmes
    from laddercast.data.loaders.presets import Keys as Keys
    from laddercast.data.loaders.presets import Preset as Preset
    from laddercast.data.loaders.presets import Size as Size
    from laddercast.data.loaders.wandb import read_wandb as read_wandb
    from laddercast.evaluation.backtests import backtest as backtest
    from laddercast.evaluation.backtests import how_much_ladder as how_much_ladder
    from laddercast.evaluation.backtests import score_backtest as score_backtest
    from laddercast.evaluation.noise import metric_noise as metric_noise
    from laddercast.evaluation.noise import noise_by_task as noise_by_task
    from laddercast.evaluation.noise import rerun_noise as rerun_noise
    from laddercast.evaluation.scores import score as score
    from laddercast.evaluation.simulation import demo_ladder as demo_ladder
    from laddercast.evaluation.simulation import simulate as simulate
    from laddercast.forecasting.averages import mean_over_tasks as mean_over_tasks
    from laddercast.forecasting.forecasts import forecast as forecast
    from laddercast.forecasting.forecasts import forecast_table as forecast_table
    from laddercast.forecasting.grids import what_if as what_if
    from laddercast.forecasting.pools import pool as pool
    from laddercast.inference.fitting import fit as fit
    from laddercast.inference.fitting import numpyro_model as numpyro_model
    from laddercast.inference.many import fit_each as fit_each
    from laddercast.inference.results import diagnose as diagnose
    from laddercast.model import routes as routes
    from laddercast.model.priors import Priors as Priors
    from laddercast.model.routes import Route as Route
    from laddercast.model.routes import by_reference as by_reference
    from laddercast.model.routes import chain as chain
    from laddercast.model.routes import direct as direct
    from laddercast.model.routes import two_stage as two_stage
    from laddercast.plots.calibration import plot_calibration as plot_calibration
    from laddercast.plots.grids import plot_iso_accuracy as plot_iso_accuracy
    from laddercast.plots.grids import plot_what_if as plot_what_if
    from laddercast.plots.intervals import plot_forecast as plot_forecast
    from laddercast.plots.noise import plot_noise as plot_noise
    from laddercast.plots.stages import plot_stage1 as plot_stage1
    from laddercast.plots.stages import plot_stage2 as plot_stage2
    from laddercast.reporting.page import report as report
