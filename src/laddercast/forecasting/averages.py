"""Forecasts of the mean over tasks, draw by draw, which keeps the errors that tasks share."""

import numpy as np
import xarray as xr

from laddercast.data import words as c


def mean_over_tasks(forecast: xr.DataTree) -> xr.DataTree:
    """A forecast with one row per target, of task `all`: the mean of each draw over its tasks.

    Groups `predictions` and, where the forecast has them, `measured` and `truth` (NaN where a task
    is lacking); `forecast_table`, `score` and `plot_forecast` read it as any other.

    >>> lc.plot_forecast(lc.mean_over_tasks(forecast))
    """
    predictions = forecast["predictions"].to_dataset()
    models = predictions[c.MODEL].to_numpy().astype(str)
    rows = [np.flatnonzero(models == name) for name in dict.fromkeys(models)]
    first = [own[0] for own in rows]
    coords = {
        name: ("row", value.to_numpy()[first])
        for name, value in predictions.coords.items()
        if value.dims == ("row",)
    }
    coords[c.TASK] = ("row", np.full(len(first), c.ALL))
    kept = {name: value for name, value in predictions.coords.items() if "row" not in value.dims}

    def averaged(data: xr.Dataset) -> xr.Dataset:
        values = {
            name: (
                value.dims,
                np.stack([value[..., own].mean("row", skipna=False) for own in rows], -1),
            )
            for name, value in data.transpose(..., "row").data_vars.items()
        }
        return xr.Dataset(values, coords=coords)

    groups = {"predictions": averaged(predictions).assign_coords(kept)}
    for name in ("measured", "truth"):
        if name in forecast.children:
            groups[name] = averaged(forecast[name].to_dataset())
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(forecast.attrs)
    return tree
