"""One forecast from those of several routes: a mixture of their draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from laddercast.data import words as c
from laddercast.inference.results import routes_of, with_complaints
from laddercast.sampling.diagnostics import Complaint, complaints_of_forecast

WORDS = (c.MODEL, c.TASK, c.PARAMS, c.TOKENS, c.CHECKPOINTS)


def pool(
    forecasts: Sequence[xr.DataTree] | xr.DataTree, weights: Mapping[str, float] | None = None
) -> xr.DataTree:
    """One forecast whose draws are those of several, of the same targets.

    As many draws as all have together, of each in proportion to its weight, evenly thinned or
    repeated; `weights` by route, of at least 0, equal unless given. Loss is from the forecasts of a
    task loss where there are any: loss and accuracy of one draw belong together only in those.
    `variance` gains `route`, that between the routes' means. The forecast of each route is a child
    of its name, as it was. Raises ValueError for none, for forecasts of different targets or
    chains, of losses alone beside those of accuracies, and for weights that do not name each route.

    >>> both = lc.pool([forecast["two_stage"], forecast["direct"]])
    """
    forecasts = [forecasts] if isinstance(forecasts, xr.DataTree) else list(forecasts)
    if not forecasts:
        raise ValueError("no forecasts to pool; give one per route")
    routes = [str(forecast.attrs["route"]) for forecast in forecasts]
    share = _shares(routes, weights)
    predictions = [forecast["predictions"].to_dataset() for forecast in forecasts]
    for word in (*WORDS, "chain"):
        values = [list(own[word].to_numpy()) for own in predictions]
        if any(own != values[0] for own in values):
            raise ValueError(f"the forecasts differ in {word}; pool those of the same targets")
    alone = [name for name, own in zip(routes, predictions, strict=True) if c.ACCURACY not in own]
    if alone and len(alone) < len(routes):
        raise ValueError(f"{', '.join(alone)} forecasts no accuracy, as others do; leave it out")
    losses = [str(forecast.attrs["loss"]) for forecast in forecasts]
    loss = c.LOSS if c.LOSS in losses else max(losses)
    having = losses.index(loss)
    # Which forecast each route's draws of a quantity are from.
    sources = {} if alone else {c.ACCURACY: list(range(len(routes)))}
    if loss:
        sources[c.LOSS] = [n if kind == loss else having for n, kind in enumerate(losses)]
    total = sum(own.sizes["draw"] for own in predictions)
    ends = np.round(np.cumsum(share) * total).astype(int)
    counts = np.diff(ends, prepend=0)
    # In turn, as a reader may take the first draws alone.
    order = np.argsort(
        np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in counts]), kind="stable"
    )

    route = np.repeat(np.arange(len(routes)), counts)[order]

    def of_draws(part: xr.DataArray, count: int) -> np.ndarray:
        draws = part.transpose("chain", "draw", "row").to_numpy()
        return draws[:, (np.arange(count) * draws.shape[1]) // max(count, 1)]

    def mixed(quantity: str, source: list[int]) -> np.ndarray:
        """Draws of a quantity, those of each route from the forecast of this number."""
        shape = len(predictions[0]["chain"]), total, predictions[0].sizes["row"]
        found = np.empty(shape)
        for number, taken in enumerate(source):
            here = route == number
            found[:, here] = of_draws(predictions[taken][quantity], int(here.sum()))
        return found

    dims = ("chain", "draw", "row")
    variables = {quantity: (dims, mixed(quantity, source)) for quantity, source in sources.items()}
    more = [c.RECIPE] if c.RECIPE in predictions[0].coords else []
    coords: dict[str, Any] = {word: predictions[0][word] for word in (*WORDS, *more)}
    coords |= {"chain": predictions[0]["chain"], "draw": np.arange(total)}
    groups = {
        "predictions": xr.Dataset(variables, coords=coords).assign_coords(
            route=("draw", np.array(routes)[route])
        ),
    }
    if not alone:
        groups["variance"] = _variance(forecasts, share, variables[c.ACCURACY][1])
    for name in ("measured", "truth"):
        if name in forecasts[having].children:
            groups[name] = forecasts[having][name].to_dataset()
    tree = xr.DataTree.from_dict(groups)
    for name, own in zip(routes, forecasts, strict=True):
        # Of a pool of one, the route's own.
        tree[name] = routes_of(own).get(name, own).copy()
    tree.attrs = {"routes": ", ".join(routes), "route": ", ".join(routes), "loss": loss}
    return with_complaints(tree, _complaints(forecasts, sources, share))


def _complaints(
    forecasts: Sequence[xr.DataTree], sources: dict[str, list[int]], share: np.ndarray
) -> list[Complaint]:
    """Why the pool's own draws cannot be trusted."""
    found = []
    for quantity, source in sources.items():
        # What comes from one forecast, for several routes, is one part.
        weights = {n: share[np.array(source) == n].sum() for n in source}
        taken = {n: weight for n, weight in weights.items() if weight > 0}
        parts = [
            forecasts[n]["predictions"][quantity].transpose("chain", "draw", "row").to_numpy()
            for n in taken
        ]
        found += complaints_of_forecast(quantity, parts, list(taken.values()))
    return found


def _shares(routes: list[str], weights: Mapping[str, float] | None) -> np.ndarray:
    if weights is None:
        return np.full(len(routes), 1 / len(routes))
    if set(weights) != set(routes):
        raise ValueError(f"weights name {', '.join(weights)}; the routes are {', '.join(routes)}")
    given = np.array([weights[name] for name in routes], float)
    if not np.isfinite(given).all() or (given < 0).any() or not given.sum():
        raise ValueError(f"weights={dict(weights)}: give numbers of at least 0, not all of them 0")
    return given / given.sum()


def _variance(
    forecasts: Sequence[xr.DataTree], share: np.ndarray, accuracy: np.ndarray
) -> xr.Dataset:
    """Variance in points squared by source: means over the routes, and between them."""
    parts = [forecast["variance"].to_dataset() for forecast in forecasts]
    means = np.array(
        [100 * own["predictions"][c.ACCURACY].mean(("chain", "draw")) for own in forecasts]
    )
    found = {
        name: sum(weight * part[name] for weight, part in zip(share, parts, strict=True))
        for name in parts[0].data_vars
        if name != "total"
    }
    between = share @ (means - share @ means) ** 2
    found["route"] = found["law"].copy(data=between)
    found["total"] = found["law"].copy(data=(100 * accuracy).var(axis=(0, 1)))
    return xr.Dataset(found)
