"""What prior and posterior say of the measurements themselves, to check a fit with ArviZ."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from arviz_base import dict_to_dataset
from numpyro import handlers

from laddercast.data import words as c
from laddercast.data.ladder import Ladder
from laddercast.data.settings import check_whole
from laddercast.inference.fitting import device_named
from laddercast.inference.results import known_routes, observed_data, routes_of
from laddercast.model.design import SITES, Design, Observed, ladder_design
from laddercast.model.priors import Priors
from laddercast.model.routes import Route
from laddercast.sampling.chains import on_device
from laddercast.sampling.density import is_latent
from laddercast.sampling.programs import in_batches


def predictive(
    fitted: xr.DataTree,
    ladder: Ladder,
    priors: Priors | None = None,
    *,
    route: Route | Sequence[Route] = (),
    draws: int = 1000,
    seed: int = 0,
) -> xr.DataTree:
    """The fit with what its priors and its posterior say of the ladder's own measurements.

    `ladder` and `priors` as given to `fit`; your own routes as `route`. Each route's child gains
    the groups `posterior_predictive` and `prior_predictive`, of the names and dimensions of its
    `observed_data`, and `prior`; of priors there are `draws`. `az.plot_ppc_dist`,
    `az.plot_ppc_pit`, `az.loo_pit` and `az.plot_prior_posterior` read them. `observed_data` then
    has what was measured alone, in cells: of `rungs="last"` those of `log_likelihood`. Raises
    ValueError for another ladder.

    >>> checked = lc.predictive(fitted, ladder)["direct"]
    >>> az.plot_ppc_pit(checked, var_names="accuracy")
    """
    if fitted.attrs.get("fingerprint", ladder.fingerprint) != ladder.fingerprint:
        raise ValueError(f"{ladder.name} is not the ladder of this fit: give that one")
    draws = check_whole("draws", draws)
    known = known_routes(routes_of(fitted), route)
    design, observed, labels, frame = ladder_design(ladder)
    models, tasks = np.array(labels.model), np.array(labels.task)
    tree = fitted.copy()
    for name, own in routes_of(tree).items():
        posterior = own["posterior"].to_dataset()
        chains, length = posterior.sizes["chain"], posterior.sizes["draw"]
        flat = {str(word): x.to_numpy().reshape(-1, *x.shape[2:]) for word, x in posterior.items()}
        model = known[name].model
        _, replicated = _simulated(model, flat, chains * length, design, priors, seed)
        prior, of_prior = _simulated(model, {}, draws, design, priors, seed + 1)
        quantities = [quantity for quantity, site in SITES.items() if site in replicated]
        data, _ = observed_data(design, observed, quantities)
        cells = {
            quantity: _cells(getattr(design, quantity).at, models[design.run], tasks, quantity)
            for quantity in quantities
        }

        def of_cells(values: Mapping[str, np.ndarray], chains: int, cells: Any = cells) -> Any:
            found = {}
            for quantity, (at, _) in cells.items():
                x = values[SITES[quantity]]
                x = np.exp(x) if SITES[quantity] != quantity else x
                found[quantity] = x[(slice(None), *at)].reshape(chains, -1, len(at[0]))
            return xr.DataTree(
                dict_to_dataset(
                    found, coords={f"{q}_cell": names for q, (_, names) in cells.items()},
                    dims={q: [f"{q}_cell"] for q in cells}, check_conventions=False,
                )
            )  # fmt: skip

        own["posterior_predictive"] = of_cells(replicated, chains)
        own["prior_predictive"] = of_cells(of_prior, 1)
        own["observed_data"] = xr.Dataset(
            {q: (f"{q}_cell", np.reshape(data[q], getattr(design, q).at.shape)[at])
             for q, (at, _) in cells.items()},
            coords={f"{q}_cell": names for q, (_, names) in cells.items()},
        )  # fmt: skip
        sites = {word: x[None] for word, x in prior.items()}
        derived = known[name].letters(sites, frame, ladder.tasks[c.CHANCE].to_numpy(float))
        own["prior"] = xr.DataTree(
            dict_to_dataset(
                {word: x for word, x in (sites | derived).items() if word in posterior},
                coords={str(word): x for word, x in posterior.coords.items() if word in x.dims
                        and word not in ("chain", "draw")},
                dims={str(word): list(x.dims[2:]) for word, x in posterior.items()},
                check_conventions=False,
            )
        )  # fmt: skip
    return tree


def _cells(
    at: np.ndarray, models: np.ndarray, tasks: np.ndarray, quantity: str
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Where a quantity was measured, and the names of these cells."""
    where = np.nonzero(at)
    names = models[where[0]]
    if quantity != c.REFERENCE_LOSS:
        names = np.array([f"{x}, {y}" for x, y in zip(names, tasks[where[1]], strict=True)])
    return where, names


def _simulated(
    model: Callable[..., None],
    values: dict[str, np.ndarray],
    count: int,
    design: Design,
    priors: Priors | None,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Latent sites and measurements (count, ...) that a route draws, with these values given."""
    with on_device(device_named("cpu")):
        keys = jax.random.split(jax.random.key(seed), count)
        placed = jax.tree.map(jnp.asarray, (design, priors or Priors()))
        latent, measured = in_batches(_simulate(model), (keys, values), *placed)
    return latent, measured


@cache
def _simulate(model: Callable[..., None]) -> Callable[..., tuple[dict, dict]]:
    def one(pair: tuple[Any, dict], design: Design, priors: Priors) -> tuple[dict, dict]:
        key, values = pair
        put = handlers.substitute(handlers.seed(model, key), data=values)
        trace = handlers.trace(put).get_trace(design, priors, Observed())
        sites = {name: site["value"] for name, site in trace.items() if is_latent(site)}
        measured = {name: sites.pop(name) for name in SITES.values() if name in sites}
        return sites, measured

    return one
