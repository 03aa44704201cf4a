"""Where chains start: a mode of the posterior, given the scales of hierarchies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from laddercast.sampling.chains import gradients
from laddercast.sampling.curvature import expected_curvature
from laddercast.sampling.density import (
    Data,
    Model,
    Site,
    Sites,
    bijection,
    is_latent,
    normal_prior,
    potential_of,
    trace_at,
)
from laddercast.sampling.preconditioner import Layout, from_curvature

HELD = 1e12
"""Curvature by which a coordinate stands still."""

LENGTH = {"maxiter": 50, "maxcor": 20}
SLIGHT = 0.1
"""A search of that length that has gained no more than this has come close enough."""

STEP = 0.01
"""Scale of all coordinates, before there is another: small beside any of them."""


def started(model: Model, args: tuple[Any, ...], values: Sites) -> tuple[Data, Sites]:
    """Data of a density, without transforms, and the scales of normal priors.

    `like` has these values of sites, else prior means. Values of sites that the model does not
    have are left alone.
    """

    # Python's numbers would be of another type before what adapts makes arrays of them.
    args = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), args)

    @jax.jit
    def unconstrained(args: tuple[Any, ...], values: Sites) -> tuple[Sites, Sites, Sites]:
        def value(site: dict[str, Any]) -> Any:
            name = site["name"]
            found = values[name] if name in values else _middle(site["fn"])
            # Priors with whole numbers for parameters would have whole numbers for coordinates.
            return jnp.broadcast_to(jnp.asarray(found, float), site["fn"].shape())

        trace = trace_at(model, Data(args, {}, {}, {}, {}), value, lambda site: site["value"])
        like, observed, scales = {}, {}, {}
        for name, site in trace.items():
            if is_latent(site):
                like[name] = bijection(site).inv(site["value"])
                if prior := normal_prior(site["fn"]):
                    scales[name] = prior.scale
            elif site["type"] == "sample":
                observed[name] = site["value"]
        return like, observed, scales

    like, observed, scales = unconstrained(args, values)
    return Data(args, {}, {}, observed, like), scales


def _middle(fn: Any) -> Any:
    # The mean of a Cauchy prior does not exist; its median is then its location.
    mean = jnp.broadcast_to(fn.mean, fn.shape())
    return jnp.where(jnp.isfinite(mean), mean, getattr(fn, "loc", 1.0))


def conditional_mode(
    model: Model, data: Data, layout: Layout, sites: dict[str, Site], start: np.ndarray
) -> np.ndarray:
    """A mode (dim,) given the sites that are held, searched from a position (dim,).

    By L-BFGS in the coordinates of the curvature at expected data, anew after each `LENGTH`.
    """
    leaves, form = jax.tree.flatten(data)
    potential = potential_of(model, form)
    held, _ = ravel_pytree(
        {name: np.full(np.shape(x), HELD * sites[name].held) for name, x in data.like.items()}
    )
    position, lowest, gain = start, np.inf, np.inf
    while gain > SLIGHT:
        found = expected_curvature(model, data, position[None], STEP, layout)
        # As a sparse matrix: two more calls of compiled functions would take longer.
        ahead = from_curvature(found.raised(np.asarray(held), layout), layout).matrix()
        back, center = ahead.T.tocsr(), position
        best = lowest, position

        def at(
            u: np.ndarray, ahead: Any = ahead, back: Any = back, center: np.ndarray = center
        ) -> tuple[float, np.ndarray]:
            nonlocal best
            there = center + ahead @ u
            (value,), (slope,) = gradients(potential, there[None], leaves)
            # A search that strays where nothing is defined ends there.
            best = (float(value), there) if value < best[0] else best
            return float(value), back @ slope

        minimize(at, np.zeros_like(position), jac=True, method="L-BFGS-B", options=LENGTH)
        gain = lowest - best[0] if best[0] < lowest else 0.0
        lowest, position = best
    return position
