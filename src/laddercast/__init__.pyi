"""The public names, for type checkers and for `__init__.py`, which loads them on first use."""

from . import baselines as baselines
from . import plots as plots
from ._version import __version__ as __version__
from .baselines.logistic import logistic as logistic
from .baselines.published import baseline as baseline
from .baselines.resampling import bootstrap as bootstrap
from .baselines.rungs import best_rung as best_rung
from .baselines.rungs import lowest_loss_rung as lowest_loss_rung
from .data import datasets as datasets
from .data import loaders as loaders
from .data.cautions import (
    AssumedWarning as AssumedWarning,
)
from .data.cautions import (
    AtChanceWarning as AtChanceWarning,
)
from .data.cautions import (
    DoubtWarning as DoubtWarning,
)
from .data.cautions import (
    FarTargetWarning as FarTargetWarning,
)
from .data.cautions import (
    LaddercastWarning as LaddercastWarning,
)
from .data.cautions import (
    NotConvergedWarning as NotConvergedWarning,
)
from .data.cautions import (
    OffLineWarning as OffLineWarning,
)
from .data.cautions import (
    SkippedWarning as SkippedWarning,
)
from .data.known_tasks import known_tasks as known_tasks
from .data.ladder import Ladder as Ladder
from .data.ladder import read_ladder as read_ladder
from .data.ladder import read_targets as read_targets
from .data.loaders.lm_eval import read_lm_eval as read_lm_eval
from .data.loaders.olmes import read_olmes as read_olmes
from .data.loaders.presets import Keys as Keys
from .data.loaders.presets import Preset as Preset
from .data.loaders.presets import Size as Size
from .data.loaders.wandb import read_wandb as read_wandb
from .decisions.allocation import allocate as allocate
from .decisions.allocation import flops_for as flops_for
from .decisions.items import more_items as more_items
from .decisions.questions import gain as gain
from .decisions.questions import probability as probability
from .decisions.recipe_scores import score_recipes as score_recipes
from .decisions.recipes import RecipeComparison as RecipeComparison
from .decisions.recipes import compare_recipes as compare_recipes
from .decisions.rungs import design_ladder as design_ladder
from .decisions.rungs import plan_rungs as plan_rungs
from .evaluation.backtest_files import read_backtest as read_backtest
from .evaluation.backtests import (
    backtest as backtest,
)
from .evaluation.backtests import (
    how_much_ladder as how_much_ladder,
)
from .evaluation.backtests import (
    score_backtest as score_backtest,
)
from .evaluation.noise import (
    metric_noise as metric_noise,
)
from .evaluation.noise import (
    noise_by_task as noise_by_task,
)
from .evaluation.noise import (
    rerun_noise as rerun_noise,
)
from .evaluation.scores import score as score
from .evaluation.simulation import demo_ladder as demo_ladder
from .evaluation.simulation import simulate as simulate
from .forecasting.averages import mean_over_tasks as mean_over_tasks
from .forecasting.forecasts import forecast as forecast
from .forecasting.forecasts import forecast_table as forecast_table
from .forecasting.forecasts import predictions as predictions
from .forecasting.grids import what_if as what_if
from .forecasting.pools import pool as pool
from .inference.fitting import fit as fit
from .inference.fitting import numpyro_model as numpyro_model
from .inference.many import fit_each as fit_each
from .inference.predictive import predictive as predictive
from .inference.results import diagnose as diagnose
from .model import routes as routes
from .model.priors import Priors as Priors
from .model.routes import (
    Route as Route,
)
from .model.routes import (
    by_reference as by_reference,
)
from .model.routes import (
    chain as chain,
)
from .model.routes import (
    direct as direct,
)
from .model.routes import (
    stage_1 as stage_1,
)
from .model.routes import (
    two_stage as two_stage,
)
from .plots.allocation import plot_allocation as plot_allocation
from .plots.calibration import plot_calibration as plot_calibration
from .plots.grids import plot_iso_accuracy as plot_iso_accuracy
from .plots.grids import plot_what_if as plot_what_if
from .plots.intervals import plot_forecast as plot_forecast
from .plots.noise import plot_noise as plot_noise
from .plots.recipes import plot_recipes as plot_recipes
from .plots.rungs import plot_plan as plot_plan
from .plots.stages import plot_stage1 as plot_stage1
from .plots.stages import plot_stage2 as plot_stage2
from .reporting.page import report as report
