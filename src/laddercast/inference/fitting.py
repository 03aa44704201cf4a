"""Fitting routes with NUTS: which, in what settings, and what is kept."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from importlib.metadata import version
from typing import Any, Literal

import jax
import numpy as np
import xarray as xr
from numpyro import distributions as dist

from laddercast.data import words as c
from laddercast.data.bounds import MOST_SEED, MOST_STEPS
from laddercast.data.cautions import SkippedWarning, warn
from laddercast.data.ladder import Ladder
from laddercast.data.settings import is_whole, whole
from laddercast.inference.results import as_tree, complaints_of, mark
from laddercast.inference.suspicions import (
    OF_FITS,
    of_data,
    of_posterior,
    of_runs,
    suspicions_of,
    warn_of,
)
from laddercast.model.design import Design, Observed, Shape, ladder_design, pad, shape_of
from laddercast.model.priors import Priors
from laddercast.model.routes import POOLED_BY_DEFAULT, ROUTES, Route, as_route, stage_1
from laddercast.model.start import start
from laddercast.sampling.chains import on_device, settling, steps_taken
from laddercast.sampling.diagnostics import summary
from laddercast.sampling.nuts import sample
from laddercast.sampling.programs import make_room
from laddercast.sampling.progress import progress_bar
from laddercast.sampling.threads import FITTING, one_blas_thread
from laddercast.sampling.work import Fit, run

RECORDED = ("laddercast", "numpyro", "jax", "arviz-base", "numpy", "pandas", "xarray")


def fit(
    ladder: Ladder,
    priors: Priors | None = None,
    *,
    route: Route | str | Sequence[Route | str] | None = None,
    seed: int = 0,
    chains: int = 4,
    warmup: int = 300,
    draws: int = 1000,
    device: Literal["cpu", "gpu"] = "cpu",
    progress: bool = True,
    within: Ladder | None = None,
) -> xr.DataTree:
    """Fit the routes from params and tokens to accuracy to a ladder with NUTS, each for itself.

    `route`: one or some of `two_stage`, `by_reference`, `direct`, `chain`, `stage_1`, by name or as
    objects, or routes of your own; by default those of the first three that the ladder has the
    measurements for (`loss`, `reference_loss`, neither; `chain` reads both), and of losses without
    accuracies `stage_1`, which forecasts losses. Per route, warm-ups of `warmup` steps, each of
    which finds coordinates, at most 100 more in the last of these, then `draws` per chain. Where
    these have not converged though none diverged, as many more, up to three times, as long as these
    seem to be enough; where that does not help, all that once more from where they ended, in
    coordinates found from them, with shorter steps. Of the routes taken by default, those that then
    have not converged are left out if another has: a `SkippedWarning` and the attribute `left_out`
    say so. With `device="gpu"` chains run there, as one batch, and all else on the CPU: one small
    ladder is faster without (`fit_each` lets many share a batch). Fits in several threads take
    turns. With `within`, a larger ladder of the same tasks, the fit shares what was compiled for
    that one's shape.

    The tree has a child for each route, by its name: `posterior`, `sample_stats`, `log_likelihood`
    (per model x task and site), `log_prior`, `observed_data`, `constant_data`, and `complaints` if
    its draws cannot be trusted. The attribute `converged` is then 0, and a `NotConvergedWarning`
    says so. Losses that rise with compute, and the like, runs far off all others or off the law,
    runs that are equal, and parameters at the edge of their priors are told by a `DoubtWarning`,
    and are in the attribute `suspicions`. Raises TypeError for what is no `Ladder`, ValueError for
    settings out of bounds, a device that JAX does not have and a route whose measurements the
    ladder lacks.

    >>> fitted = lc.fit(ladder, route="direct", seed=1)
    """
    work = prepare(
        ladder, priors, route=route, seed=seed, chains=chains, warmup=warmup, draws=draws,
        device=device, progress=progress, within=within, tell=True,
    )  # fmt: skip
    with FITTING, settings_of_fits():
        tree = run(work)
    of_fit = [own for own in suspicions_of(tree.attrs) if own["rule"] in OF_FITS]
    warn_of("the fit", of_fit)
    return tree


def prepare(
    ladder: Ladder,
    priors: Priors | None = None,
    *,
    route: Route | str | Sequence[Route | str] | None = None,
    seed: int = 0,
    chains: int = 4,
    warmup: int = 300,
    draws: int = 1000,
    device: str = "cpu",
    progress: bool = True,
    within: Ladder | None = None,
    tell: bool = False,
) -> Fit[xr.DataTree]:
    """The work of `fit`, to be run in `settings_of_fits`; raises as `fit` does, at once.

    With `tell`, it begins with a warning of what is wrong with the measurements, if anything is.
    """
    if not isinstance(ladder, Ladder):
        raise TypeError(f"a {type(ladder).__name__} is no ladder: read it with `read_ladder` first")
    given = {"seed": seed, "chains": chains, "warmup": warmup, "draws": draws}
    given = {name: whole(value) for name, value in given.items()}
    wrong = []
    for name, value in given.items():
        least, most = (0, MOST_SEED) if name == "seed" else (1, MOST_STEPS)
        if not is_whole(value, least) or value > most:
            wrong.append(f"{name}={value!r}: give a whole number from {least} to {most}")
    if wrong:
        raise ValueError("; ".join(wrong))
    routes, place = routes_for(ladder, route), device_named(device)
    return _fit(
        ladder, priors or Priors(), routes, route is None, place, given, progress, within, tell
    )


def _fit(
    ladder: Ladder, priors: Priors, routes: Sequence[Route], may_fail: bool, device: Any,
    given: dict[str, int], progress: bool, within: Ladder | None, tell: bool,
) -> Fit[xr.DataTree]:  # fmt: skip
    suspicions = of_data(ladder)
    if tell:
        warn_of(ladder.name, suspicions)
    design, observed, labels, frame = ladder_design(ladder)
    shape = shape_of(design) if within is None else _shape_within(shape_of(design), within)
    padded = pad(design, observed, shape)
    args = padded[0], priors, padded[1]
    runs = ladder.table.groupby(c.MODEL)[[c.PARAMS, c.TOKENS]].max().loc[labels.model]
    warmup, draws = given["warmup"], given["draws"]
    # The least: each further warm-up makes it more.
    steps = steps_taken(warmup) + steps_taken(settling(warmup) + draws)
    trees = {}
    with progress_bar(len(routes) * given["chains"] * steps, progress) as bar:
        for route in routes:
            make_room()
            bar.set_description(route.name)
            try:
                samples = yield from sample(
                    route.model,
                    args,
                    start=start(*args),
                    blocks=c.TASK,
                    device=device,
                    bar=bar,
                    **given,
                )
            except Exception as error:
                error.add_note(f"in the route {route.name} of {ladder.name}")
                raise
            tree = as_tree(
                route, samples, priors, padded, design=design, observed=observed, labels=labels,
                frame=frame, tasks=ladder.tasks, runs=runs,
            )  # fmt: skip
            tree.attrs["settings"] = json.dumps(
                samples.settings
                | {"draws_asked": draws, "device": device.platform, "rungs": ladder.rungs}
                | ({"within": within.fingerprint} if within is not None else {})
            )
            trees[route.name] = tree
    failed = {name: summary(found) for name, own in trees.items() if (found := complaints_of(own))}
    left_out = failed if may_fail and len(failed) < len(trees) else {}
    for name, why in left_out.items():
        del trees[name]
        warn(f"{ladder.name}: left out {name}, as it has not converged ({why})", SkippedWarning)
    tree = xr.DataTree.from_dict({})
    for name, own in trees.items():
        tree[name] = own
        # Draws that have not converged tell nothing of it, and own routes have priors of their own.
        if name in ROUTES and not complaints_of(own):
            posterior = own["posterior"].to_dataset()
            suspicions += of_posterior(name, posterior, priors) + of_runs(name, posterior, priors)
    tree.attrs = {
        "routes": ", ".join(trees),
        "left_out": json.dumps(left_out),
        "seed": given["seed"],
        "priors": json.dumps(_described(priors)),
        "fingerprint": ladder.fingerprint,
        "draws": _fingerprint(trees),
        "suspicions": json.dumps(suspicions),
        "versions": json.dumps({name: version(name) for name in RECORDED}),
    }
    return mark(tree, "the fit")


def _fingerprint(trees: dict[str, xr.DataTree]) -> str:
    """SHA-256 that fits of other draws do not share: the energies of all routes' draws."""
    found = hashlib.sha256()
    for tree in trees.values():
        found.update(np.ascontiguousarray(tree["sample_stats"]["energy"].to_numpy()).tobytes())
    return found.hexdigest()


def settings_of_fits() -> ExitStack:
    """Float64 on a CPU, and one thread for sums of small matrices, which several would hinder."""
    stack = on_device(device_named("cpu"))
    stack.enter_context(one_blas_thread())
    return stack


def numpyro_model(
    ladder: Ladder, route: Route | str = "two_stage", priors: Priors | None = None
) -> tuple[Callable[..., None], tuple[Design, Priors, Observed]]:
    """The NumPyro model of a route and its arguments, for any sampler: `model(*args)`.

    Sites that are `None` in the last argument are forecast, not conditioned on. Numbers are float64
    where JAX has that enabled. Raises ValueError as `fit` does.

    >>> model, args = lc.numpyro_model(ladder, "direct")
    >>> kernel = numpyro.infer.NUTS(model)
    """
    (chosen,) = routes_for(ladder, route)
    design, observed, _, _ = ladder_design(ladder)
    return chosen.model, (design, priors or Priors(), observed)


def routes_for(
    ladder: Ladder, route: Route | str | Sequence[Route | str] | None
) -> tuple[Route, ...]:
    """The routes to fit."""
    if route is None:
        return tuple(own for own in POOLED_BY_DEFAULT if not _lacking(ladder, own)) or (stage_1,)
    # What is neither is told by `as_route`.
    several = not isinstance(route, str) and isinstance(route, Sequence)
    given: Any = route if several else [route]
    routes = tuple(as_route(own) for own in given)
    names = [own.name for own in routes]
    if not routes or len(set(names)) < len(names):
        raise ValueError(
            f"route={names}: give one or several of {', '.join(ROUTES)}, or own ones, each once"
        )
    faults = [
        f"{own.name} needs {', '.join(lacking)}"
        for own in routes
        if (lacking := _lacking(ladder, own))
    ]
    if faults:
        raise ValueError(f"{'; '.join(faults)}: the ladder has none; leave the route out")
    return routes


def _lacking(ladder: Ladder, route: Route) -> list[str]:
    return [word for word in route.reads if not c.measured(ladder.table, word)]


def _shape_within(own: Shape, within: Ladder) -> Shape:
    whole = shape_of(ladder_design(within)[0])
    # A part's knots lie otherwise, and can be one more in params and one in tokens.
    return Shape(*map(max, own, whole._replace(intervals=whole.intervals + 2)))


def device_named(name: str) -> Any:
    """JAX's device of this kind. Raises ValueError where there is none."""
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
