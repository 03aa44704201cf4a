"""Trees in files: whole or not at all, and the same bytes for the same tree."""

from io import BytesIO
from pathlib import Path

import xarray as xr

from laddercast.data.temporary import write_whole


def save(tree: xr.DataTree, path: Path) -> None:
    """Write a tree as NetCDF. Raises OSError where the disk is full, and leaves nothing then.

    HDF5 ends the process where it cannot write to a file, so it writes to memory.
    """
    memory = BytesIO()
    tree.to_netcdf(memory, engine="h5netcdf")
    write_whole(path, memory.getvalue())
