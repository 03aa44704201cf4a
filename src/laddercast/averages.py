"""Forecasts of the mean over tasks: of each draw, so that what tasks share is not averaged away."""

import numpy as np
import xarray as xr

from laddercast import columns as c
from laddercast.score import ALL


def mean_over_tasks(forecast: xr.DataTree) -> xr.DataTree:
    """A forecast with one row per target, of task `all`: the mean of each draw over its tasks.

    Groups `predictions` and, where the forecast has it, `measured` (NaN where a task is lacking);
    `forecast_table`, `score` and `plot_forecast` read it as any other.
    """
    predictions = forecast["predictions"].to_dataset()
    models = predictions[c.MODEL].to_numpy().astype(str)
    names, first, which = np.unique(models, return_index=True, return_inverse=True)
    order = np.argsort(first)  # targets in the order of the forecast
    counts = np.bincount(which)
    share = (which[:, None] == np.arange(len(names))) / counts
    share, first = share[:, order], first[order]
    coords = {
        name: ("row", value.to_numpy()[first])
        for name, value in predictions.coords.items()
        if value.dims == ("row",)
    }
    coords[c.TASK] = ("row", np.full(len(first), ALL))
    kept = {name: value for name, value in predictions.coords.items() if "row" not in value.dims}

    def averaged(data: xr.Dataset) -> xr.Dataset:
        values = {
            name: (value.dims, value.to_numpy() @ share)
            for name, value in data.transpose(..., "row").data_vars.items()
        }
        return xr.Dataset(values, coords=coords)

    groups = {"predictions": averaged(predictions).assign_coords(kept)}
    if "measured" in forecast.children:
        groups["measured"] = averaged(forecast["measured"].to_dataset())
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(forecast.attrs)
    return tree
