"""NUTS for a hierarchical NumPyro model: start, warm-ups that find coordinates, draws."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from laddercast.sampling.adapt import adapted, preconditioned, repositioned, scaled
from laddercast.sampling.chains import (
    Draws,
    Settings,
    compiled_ahead,
    gradients,
    run_chains,
    settling,
    steps_taken,
)
from laddercast.sampling.curvature import layout_of
from laddercast.sampling.density import (
    Data,
    Model,
    Sites,
    forward,
    is_latent,
    potential_of,
    structure,
)
from laddercast.sampling.diagnostics import ESS_PARAMETERS, Complaint, complaints, times_enough
from laddercast.sampling.mode import STEP, conditional_mode, started
from laddercast.sampling.preconditioner import empty
from laddercast.sampling.programs import in_batches
from laddercast.sampling.progress import lengthen
from laddercast.sampling.work import Fit

FIRST_TARGET = 0.8
"""In warm-ups, which only find coordinates."""

TARGET_ACCEPTS = 0.94, 0.98
"""Steps so short that a trajectory takes as many every time, 31 as a rule: effective draws per
gradient are as many as with longer ones, but per draw they are more. The second, where the first
has not converged: shorter yet, as divergences ask for."""

MAX_TREE_DEPTH = (6, 10)
"""A warm-up from the start, in poor coordinates, is not worth long trajectories."""

MANY_STEPS = 100
"""Where trajectories of the first draws are longer than this on average, these tell coordinates in
which all begin anew: what moves so slowly, shorter trajectories of warm-ups cannot have told."""

MOST_TIMES = 4
"""At most so many times the draws asked for in the same coordinates."""

DISPERSION = 2.0
"""Of where chains begin about the mode, in SDs of the normal density that has its curvature."""

WARMUPS = 3
FEW_STEPS = 50
"""Warm-ups, each in the coordinates that the one before found, go on while trajectories are longer
than this on average, up to their number."""

TELLING = 1000
"""Draws from which coordinates are found: more tell little more."""


class Samples(NamedTuple):
    """What sampling gives: draws (chains, draws, ...), why not to trust them, settings used."""

    values: Sites  # constrained latent sites
    dims: dict[str, tuple[str | None, ...]]  # the plate of each dimension but chains and draws
    stats: dict[str, np.ndarray]  # by ArviZ's names of sample statistics
    complaints: list[Complaint]
    settings: dict[str, Any]


def sample(
    model: Model,
    args: tuple[Any, ...],
    *,
    start: Sites | None = None,
    blocks: str | None = None,
    seed: int = 0,
    chains: int = 4,
    warmup: int = 300,
    draws: int = 1000,
    device: Any = None,
    bar: Any,
) -> Fit[Samples]:
    """Draws from the posterior of `model(*args)`, a NumPyro model given its observations.

    `args` are pytrees of arrays: data of one shape share what was compiled. `start` has values of
    sites to begin at (others begin at their prior means). `blocks` names a plate whose elements
    bear on each other through sites outside of it alone. Warm-ups of `warmup` steps, each of which
    finds coordinates, then `draws` per chain. Where these have not converged though none diverged,
    as many more, up to three times, as long as these seem to be enough; where that does not help,
    all once more from where they ended, in coordinates found from them, with shorter steps. What a
    model declares for the sampler is in `density.py`.

    A generator of work, for `work.run` or `work.run_all`, to be run with float64 on a CPU.
    """
    one_warmup = chains * steps_taken(warmup)
    settings = Settings(warmup, MAX_TREE_DEPTH)
    device = jax.devices("cpu")[0] if device is None else device
    data, scales = started(model, args, start or {})
    sites = structure(model, data)
    layout = layout_of(sites, data.like, blocks)
    data = scaled(data, layout, sites, scales)
    leaves, form = jax.tree.flatten(data)
    compiled = compiled_ahead(potential_of(model, form), settings, empty(layout), leaves, device)
    (position,) = repositioned(model, data, jax.tree.map(lambda x: np.asarray(x)[None], data.like))
    keys = jax.random.split(jax.random.key(seed), WARMUPS + 2)

    def some(positions: np.ndarray) -> np.ndarray:
        """At most `TELLING` of all chains, among them the last."""
        return positions[:, :: -max(1, chains * positions.shape[1] // TELLING)][:, ::-1]

    def longer(
        run: Callable[..., Any], found: Draws, going: list[Any], count: int
    ) -> Fit[tuple[Draws, list[Any]]]:
        """What was found and `count` more draws of the same chains, and their states."""
        more, going = yield from run(count, bar, device, going)
        return Draws(*(np.concatenate(x, axis=1) for x in zip(found, more, strict=True))), going

    mode = conditional_mode(model, data, layout, sites, position)
    ((mode,),), data = adapted(model, data, layout, sites, mode[None, None])
    coordinates = preconditioned(model, data, layout, mode[None], STEP)
    # Chains that begin further apart than draws will lie show by R-hat where they do not meet.
    away = jax.random.normal(jax.random.fold_in(keys[0], 0), (chains, len(mode)))
    centers = mode + DISPERSION * away @ coordinates.matrix().T
    leaves, form = jax.tree.flatten(data)
    centers[~np.isfinite(gradients(potential_of(model, form), centers, leaves)[0])] = mode
    compiled.result()
    for left, key in zip(range(WARMUPS - 1, -1, -1), keys[:WARMUPS], strict=True):
        leaves, form = jax.tree.flatten(data)
        potential = potential_of(model, form)
        found, _ = yield from run_chains(
            potential, settings, FIRST_TARGET, centers, coordinates, leaves, key, 0, bar, device
        )
        early, steps = some(found.position[:, warmup // 2 :]), found.num_steps[:, warmup // 2 :]
        if not left or steps.mean() < FEW_STEPS:
            break
        lengthen(bar, one_warmup)
        early, data = adapted(model, data, layout, sites, early)
        centers = early[:, -1]
        coordinates = preconditioned(model, data, layout, early.reshape(-1, early.shape[-1]), None)
    first = min(draws, warmup)
    for key, target in zip(keys[WARMUPS:], TARGET_ACCEPTS, strict=True):
        for last, own in enumerate((key, jax.random.fold_in(key, 0))):
            early, data = adapted(model, data, layout, sites, early)
            leaves, form = jax.tree.flatten(data)
            rows = early.reshape(-1, early.shape[-1])
            coordinates = preconditioned(model, data, layout, rows, None)
            run = partial(
                run_chains, potential_of(model, form), settings, target, early[:, -1], coordinates,
                leaves, own,
            )  # fmt: skip
            found, going = yield from run(first, bar, device, whole=False)
            if last or first == draws or found.num_steps.mean() < MANY_STEPS:
                break
            lengthen(bar, chains * steps_taken(settling(warmup) + first))
            early = some(found.position)
        if first < draws:
            found, going = yield from longer(run, found, going, draws - first)
        kept = _kept(model, data, found, draws)
        # One chain cannot show it, and draws fewer than the limit on effective ones, or twice of
        # them, cannot reach it.
        if not kept.complaints or chains < 2 or chains * draws < ESS_PARAMETERS:
            break
        times = 1
        # What moves slowly needs more draws, not other steps; what chains are stuck in, neither.
        while (
            kept.complaints
            and not found.diverging.any()
            and times < MOST_TIMES
            and times * times_enough(kept.complaints) <= MOST_TIMES
        ):
            times += 1
            lengthen(bar, chains * steps_taken(draws))
            bar.set_description("not converged, sampling on")
            del kept  # of many blocks, it is large
            found, going = yield from longer(run, found, going, draws)
            kept = _kept(model, data, found, times * draws)
        if not kept.complaints:
            break
        if target == TARGET_ACCEPTS[0]:
            lengthen(bar, chains * steps_taken(settling(warmup) + draws))
            bar.set_description("not converged, with shorter steps")
            early = some(found.position).copy()
            del kept, found
    used = {
        "chains": chains,
        "warmup": warmup,
        "draws": kept.stats["energy"].shape[1],
        "target_accept": target,
        "max_tree_depth": MAX_TREE_DEPTH,
    }
    plates = {
        name: {dim: plate for plate, dim in own.plates.items()} for name, own in sites.items()
    }
    dims = {
        name: tuple(map(plates[name].get, range(2 - x.ndim, 0))) for name, x in kept.values.items()
    }
    return kept._replace(settings=used, dims=dims)


def _kept(model: Model, data: Data, found: Draws, length: int) -> Samples:
    kept = Draws(*(field[:, :length] for field in found))
    *own, dim = kept.position.shape
    values = in_batches(_values(model), kept.position.reshape(-1, dim), data)
    values = {name: x.reshape(*own, *x.shape[1:]) for name, x in values.items()}
    stats = {
        "diverging": kept.diverging,
        "n_steps": kept.num_steps,
        # A trajectory of depth n has at least 2^(n - 1) steps, and less than twice as many.
        "tree_depth": np.frexp(kept.num_steps)[1],
        "acceptance_rate": kept.accept_prob,
        "energy": kept.energy,
        "lp": -kept.potential,
        "step_size": kept.step_size,
    }
    return Samples(values, {}, stats, complaints(values, stats, MAX_TREE_DEPTH[1]), {})


@cache
def _values(model: Model) -> Callable[[jax.Array, Data], Sites]:
    """Constrained latent sites at a position (dim,)."""

    def one(position: jax.Array, data: Data) -> Sites:
        sites = forward(model, data, position).sites
        return {name: site["value"] for name, site in sites.items() if is_latent(site)}

    return one
