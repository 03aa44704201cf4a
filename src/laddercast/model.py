"""The joint model of both stages, as one NumPyro function that fits and forecasts."""

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, nn
from jax.typing import ArrayLike

from laddercast import laws
from laddercast.design import Design
from laddercast.priors import Priors

LOGS = (
    "alpha",
    "beta",
    "slope",
    "run_loss",
    "run_accuracy",
    "checkpoint_loss",
    "checkpoint_accuracy",
)
"""Quantities that are pooled in logs; their sites are called `log_...`."""

RUN_DOF = 4.0
"""Degrees of freedom of run effects: heavy tails, so that an outlying rung does not bend a law."""


def two_stage(
    design: Design,
    priors: Priors,
    loss: ArrayLike | None = None,
    accuracy: ArrayLike | None = None,
    loss_spread: ArrayLike | None = None,
    accuracy_spread: ArrayLike | None = None,
) -> None:
    """Loss from params and tokens, accuracy from the run's latent loss, all tasks together.

    Conditions on the measurements given, in the order of the design's rows (losses in their own
    unit, accuracies as fractions, spreads as variances between checkpoints); what is not given is
    forecast. Sites `law`, `discrepancy`, `run` and `accuracy` are the successive levels of one
    forecast: the laws as the ladder bends them, then with discrepancy beyond the ladder, with the
    run's effect, and as measured.
    """

    def scalar(name: str) -> Array:
        return numpyro.sample(name, getattr(priors, name))

    def pooled(plate: numpyro.plate, name: str) -> Array:
        center, scale = scalar(f"{name}_center"), scalar(f"{name}_scale")
        with plate:
            return numpyro.sample(
                f"log_{name}" if name in LOGS else name, dist.Normal(center, scale)
            )

    def random_walk(name: str, plate: numpyro.plate) -> tuple[Array, Array]:
        """The walk (points, width) as far as the ladder reaches, and in full."""
        scale = scalar(f"{name}_scale")
        with numpyro.plate(f"{name}_step", design.walk.shape[1], dim=-2), plate:
            within = scale * (design.walk @ numpyro.sample(name, dist.Normal()))
        if not design.beyond.shape[1]:
            return within, within
        with numpyro.plate(f"{name}_step_beyond", design.beyond.shape[1], dim=-2), plate:
            beyond = scale * (design.beyond @ numpyro.sample(f"{name}_beyond", dist.Normal()))
        return within, within + beyond

    curves = numpyro.plate("curve", design.curve.shape[0], dim=-1)
    tasks = numpyro.plate("task", design.chance.shape[0], dim=-1)

    # Stage 1
    with curves:
        loss_level = numpyro.sample("loss_level", priors.loss_level)
    log_alpha = pooled(curves, "alpha")
    log_beta = pooled(curves, "beta")
    share_e = pooled(curves, "share_e")
    share_a = pooled(curves, "share_a")
    log_run_loss = pooled(curves, "run_loss")
    log_checkpoint_loss = pooled(curves, "checkpoint_loss")
    log_reducible = loss_level + nn.log_sigmoid(-share_e)
    log_a = log_reducible + nn.log_sigmoid(share_a)
    log_b = log_reducible + nn.log_sigmoid(-share_a)
    log_e = loss_level + nn.log_sigmoid(share_e)
    log_law = laws.log_loss(
        design.log_params[:, None], design.log_tokens[:, None],
        log_a, log_b, log_e, jnp.exp(log_alpha), jnp.exp(log_beta),
    )  # fmt: skip
    near_loss, walk_loss = random_walk("walk_loss", curves)
    log_mean = log_law + walk_loss  # (points, curves)

    correlation = scalar("run_loss_correlation")
    run_loss = jnp.exp(log_run_loss)
    with numpyro.plate("model", design.end.shape[0]):
        shared_loss = numpyro.sample("run_loss_shared", dist.Normal())
        shared_accuracy = numpyro.sample("run_accuracy_shared", dist.Normal())
    run, curve = design.loss_cell_run, design.loss_cell_curve
    at_end = log_mean[design.end[run], curve]
    with numpyro.plate("loss_cell", run.shape[0]):
        latent = numpyro.sample(
            "log_latent_loss",
            dist.StudentT(
                RUN_DOF,
                at_end + run_loss[curve] * jnp.sqrt(correlation) * shared_loss[run],
                run_loss[curve] * jnp.sqrt(1 - correlation),
            ),
        )
    effect = (
        latent - at_end
    )  # (loss cells,) the run's deviation from the law, the same at all points
    checkpoint_loss = jnp.exp(log_checkpoint_loss)
    cell, point = design.loss_cell, design.loss_point
    log_latent = log_mean[point, curve[cell]] + effect[cell]
    with numpyro.plate("loss_row", cell.shape[0]):
        numpyro.sample(
            "loss",
            dist.LogNormal(
                log_latent, checkpoint_loss[curve[cell]] / jnp.sqrt(design.loss_checkpoints)
            ),
            obs=loss,
        )
    if design.loss_spread_cell.shape[0]:
        spread_of = checkpoint_loss[curve[design.loss_spread_cell]] ** 2
        half = design.loss_spread_dof / 2
        with numpyro.plate("loss_spread_cell", half.shape[0]):
            numpyro.sample("loss_spread", dist.Gamma(half, half / spread_of), obs=loss_spread)

    # Stage 2
    with tasks:
        accuracy_level = numpyro.sample("accuracy_level", priors.accuracy_level)
        gap = numpyro.sample("gap", priors.gap)
        log_lower = numpyro.sample("log_lower", priors.log_lower)
    log_slope = pooled(tasks, "slope")
    log_run_accuracy = pooled(tasks, "run_accuracy")
    log_checkpoint_accuracy = pooled(tasks, "checkpoint_accuracy")
    reference = jnp.exp(loss_level)[design.task_curve]
    k = jnp.exp(log_slope) / reference
    L0 = reference + accuracy_level / k  # noqa: N806 - the paper's letter
    upper = 1 - gap
    lower = jnp.minimum(design.chance * jnp.exp(log_lower), upper)
    near_accuracy, walk_accuracy = random_walk("walk_accuracy", tasks)

    def curve_at(log_loss: ArrayLike, task: Any, shift: ArrayLike) -> Array:
        return laws.accuracy(jnp.exp(log_loss), k[task], L0[task], lower[task], upper[task], shift)

    def binomial_sd(p: Array, task: Any) -> Array:
        # One pseudo-count keeps the noise above zero where a curve ends at 0 or 1.
        items = design.items[task]
        return jnp.sqrt((p * (1 - p) + 1 / items) / items)

    run, task = design.accuracy_cell_run, design.accuracy_cell_task
    effect_of = effect[design.accuracy_cell_loss]
    end_point = design.end[run]
    curve_of = design.task_curve[task]
    p_end = curve_at(
        log_mean[end_point, curve_of] + effect_of, task, walk_accuracy[end_point, task]
    )
    sd_end = binomial_sd(p_end, task)
    correlation = scalar("run_accuracy_correlation")
    run_accuracy = jnp.exp(log_run_accuracy)
    with numpyro.plate("accuracy_cell", run.shape[0]):
        run_mean = numpyro.sample(
            "run_mean_accuracy",
            dist.StudentT(
                RUN_DOF,
                p_end + run_accuracy[task] * jnp.sqrt(correlation) * shared_accuracy[run] * sd_end,
                run_accuracy[task] * jnp.sqrt(1 - correlation) * sd_end,
            ),
        )
    run_effect = run_mean - p_end  # (accuracy cells,)
    cell, point = design.accuracy_cell, design.accuracy_point
    task, curve_of, effect_of = task[cell], curve_of[cell], effect_of[cell]
    p = curve_at(log_mean[point, curve_of] + effect_of, task, walk_accuracy[point, task])
    sd = binomial_sd(p, task)
    mean = p + run_effect[cell]
    near = (log_law + near_loss)[point, curve_of]
    numpyro.deterministic("law", curve_at(near, task, near_accuracy[point, task]))
    numpyro.deterministic(
        "discrepancy", curve_at(log_mean[point, curve_of], task, walk_accuracy[point, task])
    )
    numpyro.deterministic("run", mean)
    with numpyro.plate("accuracy_row", cell.shape[0]):
        checkpoint_accuracy = jnp.exp(log_checkpoint_accuracy)
        numpyro.sample(
            "accuracy",
            dist.Normal(
                mean, checkpoint_accuracy[task] * sd / jnp.sqrt(design.accuracy_checkpoints)
            ),
            obs=accuracy,
        )
    if design.accuracy_spread_cell.shape[0]:
        spread_cell = design.accuracy_spread_cell
        task = design.accuracy_cell_task[spread_cell]
        spread_of = (checkpoint_accuracy[task] * sd_end[spread_cell]) ** 2
        half = design.accuracy_spread_dof / 2
        with numpyro.plate("accuracy_spread_cell", half.shape[0]):
            numpyro.sample(
                "accuracy_spread", dist.Gamma(half, half / spread_of), obs=accuracy_spread
            )
