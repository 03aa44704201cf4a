"""Fitting the routes with NUTS: which, in what settings, and what is kept."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from numpyro import distributions as dist
from threadpoolctl import threadpool_limits

from laddercast.data import words as c
from laddercast.data.ladder import Ladder
from laddercast.inference.results import as_tree
from laddercast.model.design import (
    Design,
    Observed,
    Size,
    ladder_design,
    pad,
    size,
)
from laddercast.model.priors import Priors
from laddercast.model.routes import POOLED, READS, ROUTES, Route
from laddercast.sampling.chains import (
    Draws,
    Settings,
    compile_chains,
    on_device,
    run_chains,
    settling,
    steps_taken,
)
from laddercast.sampling.density import Leaves, potential_of
from laddercast.sampling.diagnostics import ESS_PARAMETERS, complaints, mark
from laddercast.sampling.preconditioner import plain_geometry
from laddercast.sampling.programs import in_batches, make_room
from laddercast.sampling.progress import lengthen, progress_bar
from laddercast.sampling.replay import find, keep
from laddercast.sampling.start import (
    STEP,
    conditional_mode,
    from_draws,
    information,
    repositioned,
    standardised,
    start,
)

FIRST_TARGET = 0.8
"""In warm-ups, which only find coordinates."""

TARGET_ACCEPTS = 0.94, 0.98
"""Steps so short that a trajectory takes as many every time, 31 as a rule: effective draws per
gradient are as many as with longer ones, but per draw they are more. The second, where the first
has not converged: shorter yet, as divergences ask for."""

MAX_TREE_DEPTH = (7, 10)
"""A warm-up from the start, in poor coordinates, is not worth long trajectories."""

WARMUPS = 3
FEW_STEPS = 100
"""Warm-ups, each in the coordinates that the one before found, go on while trajectories are longer
than this on average, up to their number."""

TELLING = 1000
"""Draws from which coordinates are found: more tell little more."""

RECORDED = ("laddercast", "numpyro", "jax", "arviz-base", "numpy", "pandas", "xarray")


class Sampler(NamedTuple):
    """Settings of a fit, as its user gives them."""

    seed: int
    chains: int
    warmup: int
    draws: int


def fit(
    ladder: Ladder,
    priors: Priors | None = None,
    *,
    route: Route | Sequence[Route] | None = None,
    seed: int = 0,
    chains: int = 4,
    warmup: int = 300,
    draws: int = 1000,
    device: Literal["cpu", "gpu"] = "cpu",
    progress: bool = True,
    within: Ladder | None = None,
) -> xr.DataTree:
    """Fit the routes from params and tokens to accuracy to a ladder with NUTS, each for itself.

    `route`: one or some of `two_stage`, `by_reference`, `direct`, `chain`; by default those of the
    first three that the ladder has the measurements for (`loss`, `reference_loss`, neither; `chain`
    reads both). Per route, warm-ups of `warmup` steps, each of which finds coordinates, at most 100
    more in the last of these, then `draws` per chain. Where these have not converged though none
    diverged, as many again; where that does not help, all that once more from where they ended, in
    coordinates found from them, with shorter steps. With `device="gpu"` chains run there, as one
    batch, and all else on the CPU: one small ladder is faster without (`fit_each` lets many share a
    batch). With `within`, a larger ladder of the same tasks, the fit shares what was compiled for
    that one's shape.

    The first route's groups are the tree's own: `posterior`, `sample_stats`, `log_likelihood` (per
    model x task and site), `log_prior`, `observed_data`, `constant_data`; those of each further
    route are in a child of its name. Warns, and sets the attribute `converged` to 0 and
    `complaints`, where draws cannot be trusted even so. Raises TypeError for what is no `Ladder`,
    ValueError for settings below 1, a device that JAX does not have and a route whose measurements
    the ladder lacks.
    """
    if not isinstance(ladder, Ladder):
        raise TypeError(f"a {type(ladder).__name__} is no ladder: read it with `read_ladder` first")
    wrong = [
        f"{name}={value}"
        for name, value in {"chains": chains, "warmup": warmup, "draws": draws}.items()
        if value < 1
    ]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: give whole numbers of at least 1")
    priors = Priors() if priors is None else priors
    names = _chosen(ladder, route)
    design, observed, labels, frame = ladder_design(ladder)
    room = size(design) if within is None else _room(size(design), within)
    padded = pad(design, observed, room)
    place = _device(device)
    runs = ladder.table.groupby(c.MODEL)[[c.PARAMS, c.TOKENS]].max().loc[labels.model]
    sampler = Sampler(seed, chains, warmup, draws)
    each = chains * (WARMUPS * steps_taken(warmup) + steps_taken(settling(warmup) + draws))
    kept = partial(
        as_tree,
        design=design, observed=observed, labels=labels, frame=frame, tasks=ladder.tasks, runs=runs,
    )  # fmt: skip
    trees, doubts = {}, []
    # Matrices are so small that several threads would hinder one another.
    one_thread = threadpool_limits(1, user_api="blas")
    with one_thread, on_device(_device("cpu")), progress_bar(len(names) * each, progress) as bar:
        for name in names:
            make_room()
            bar.set_description(name)
            tree, found, settings = _sample(
                ROUTES[name], *padded, priors, sampler, place, bar, kept
            )
            doubts += [f"{name}: {text}" for text in found]
            tree.attrs |= {
                "route": name, "converged": int(not found), "complaints": "; ".join(found),
            }  # fmt: skip
            tree.attrs["settings"] = json.dumps(
                settings | {"device": device, "rungs": ladder.rungs}
            )
            trees[name] = tree
    tree = trees[names[0]]
    for name in names[1:]:
        tree[name] = trees[name]
    tree.attrs |= {
        "seed": seed,
        "priors": json.dumps(_described(priors)),
        "fingerprint": ladder.fingerprint,
        "versions": json.dumps({name: version(name) for name in RECORDED}),
    }
    return mark(tree, doubts)


def _chosen(ladder: Ladder, route: Route | Sequence[Route] | None) -> list[str]:
    """Names of the routes to fit."""
    lacking = {
        name: [word for word in words if not c.measured(ladder.table, word)]
        for name, words in READS.items()
    }
    if route is None:
        return [name for name in POOLED if not lacking[name]]
    given = [route] if callable(route) else list(route)
    of = {function: name for name, function in ROUTES.items()}
    names = [of.get(function, "") for function in given]
    if not names or "" in names or len(set(names)) < len(names):
        raise ValueError(f"route={route!r}: give one or several of {', '.join(ROUTES)}, each once")
    faults = [f"{name} needs {', '.join(lacking[name])}" for name in names if lacking[name]]
    if faults:
        raise ValueError(f"{'; '.join(faults)}: the ladder has none; leave the route out")
    return names


def _room(own: Size, within: Ladder) -> Size:
    whole = size(ladder_design(within)[0])
    # A part's knots lie otherwise, and can be one more.
    return Size(*map(max, own, whole._replace(intervals=whole.intervals + 1)))


def _sample(
    route: Route,
    design: Design,
    observed: Observed,
    priors: Priors,
    given: Sampler,
    place: Any,
    bar: Any,
    as_kept: Callable[..., xr.DataTree],
) -> tuple[xr.DataTree, list[str], dict[str, Any]]:
    """The draws as they are kept, why they cannot be trusted, and the settings used."""
    seed, chains, warmup, draws = given
    one_warmup = chains * steps_taken(warmup)
    settings = Settings(warmup, MAX_TREE_DEPTH)
    data, layout = start(route, design, priors, observed)
    extra = information(data)
    leaves, form = jax.tree.flatten(data)
    potential = potential_of(route, form)
    keys = jax.random.split(jax.random.key(seed), WARMUPS + 2)

    def replayed(positions: np.ndarray, leaves: Leaves, replay: Any = keep) -> Any:
        with on_device(_device("cpu")):  # also in another thread
            return in_batches(replay(route, form), positions, leaves)

    def kept_of(found: Draws, length: int) -> tuple[xr.DataTree, list[str]]:
        kept = Draws(*(field[:, :length] for field in found))
        *own, dim = kept.position.shape
        replays = replayed(kept.position.reshape(-1, dim), leaves)
        replays = jax.tree.map(lambda x: x.reshape(*own, *x.shape[1:]), replays)
        stats = {
            "diverging": kept.diverging,
            "n_steps": kept.num_steps,
            "acceptance_rate": kept.accept_prob,
            "energy": kept.energy,
        }
        tree = as_kept(*replays, stats)
        return tree, complaints(tree)

    def some(positions: np.ndarray) -> np.ndarray:
        """At most `TELLING` of all chains, among them the last."""
        return positions[:, :: -max(1, chains * positions.shape[1] // TELLING)][:, ::-1]

    center = np.asarray(ravel_pytree(data.like)[0])
    plain = jax.tree.map(jnp.asarray, plain_geometry(layout))
    # Beside what the search for a mode compiles.
    with ThreadPoolExecutor(2) as beside:
        compiling = (
            beside.submit(compile_chains, potential, settings, center, plain, leaves, place),
            beside.submit(replayed, center[None], leaves, find),
            beside.submit(replayed, center[None], leaves),
        )
        mode = conditional_mode(route, data, layout, extra)
        for one in compiling:
            one.result()
        ((mode,),), data = repositioned(route, mode[None, None], data, layout)
        leaves = jax.tree.leaves(data)
        coordinates = standardised(route, mode[None], STEP, data, layout, extra)
        centers = np.tile(mode, (chains, 1))
        for left, key in zip(range(WARMUPS - 1, -1, -1), keys[:WARMUPS], strict=True):
            found, _ = run_chains(
                potential, settings, FIRST_TARGET, centers, coordinates, leaves, key, 0, bar,
                place,
            )  # fmt: skip
            early, steps = some(found.position[:, warmup // 2 :]), found.num_steps[:, warmup // 2 :]
            centers = early[:, -1]
            if not left or steps.mean() < FEW_STEPS:
                lengthen(bar, -left * one_warmup)
                break
            early, data = repositioned(route, early, data, layout)
            leaves, centers = jax.tree.leaves(data), early[:, -1]
            coordinates = from_draws(route, early, data, layout, extra)
    for key, target in zip(keys[WARMUPS:], TARGET_ACCEPTS, strict=True):
        early, data = repositioned(route, early, data, layout)
        leaves = jax.tree.leaves(data)
        coordinates = from_draws(route, early, data, layout, extra)
        given_chains = (
            potential, settings, target, early[:, -1], coordinates, leaves, key, draws, bar, place
        )  # fmt: skip
        found, going = run_chains(*given_chains, whole=False)
        tree, doubts = kept_of(found, draws)
        # One chain cannot show it, and draws fewer than the limit on effective ones, or twice of
        # them, cannot reach it.
        if not doubts or chains < 2 or chains * draws < ESS_PARAMETERS:
            break
        if not found.diverging.any():
            # What moves slowly needs more draws, not other steps.
            lengthen(bar, chains * steps_taken(draws))
            bar.set_description("not converged, sampling on")
            del tree  # of many tasks, it is large
            more, _ = run_chains(*given_chains, going)
            found = Draws(*map(_joined, found, more))
            tree, doubts = kept_of(found, 2 * draws)
            if not doubts:
                break
        if target == TARGET_ACCEPTS[0]:
            lengthen(bar, chains * steps_taken(settling(warmup) + draws))
            bar.set_description("not converged, with shorter steps")
            early = some(found.position).copy()
            del tree, found
    used = {
        "chains": chains,
        "warmup": warmup,
        "draws": tree["posterior"].sizes["draw"],
        "target_accept": target,
        "max_tree_depth": MAX_TREE_DEPTH,
    }
    return tree, doubts, used


def _joined(one: np.ndarray, more: np.ndarray) -> np.ndarray:
    return np.concatenate([one, more], axis=1)


def _device(name: str) -> Any:
    try:
        return jax.devices(name)[0]
    except RuntimeError as error:
        cure = (
            "name it in JAX_PLATFORMS, as all but chains runs there"
            if name == "cpu"
            else 'use device="cpu", or install JAX for your GPU'
        )
        raise ValueError(
            f"device={name!r}: JAX has no such device here ({error}); {cure}"
        ) from None


def _described(priors: Priors) -> dict[str, str]:
    def describe(prior: dist.Distribution) -> str:
        given = ", ".join(
            f"{float(getattr(prior, name)):g}"
            if np.ndim(getattr(prior, name)) == 0
            else str(getattr(prior, name))
            for name in prior.arg_constraints
        )
        return f"{type(prior).__name__}({given})"

    return {prior.name: describe(getattr(priors, prior.name)) for prior in fields(priors)}
