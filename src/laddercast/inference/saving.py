"""Trees in files: whole or not at all, and the same bytes for the same tree."""

import os
from io import BytesIO
from pathlib import Path

import xarray as xr


def save(tree: xr.DataTree, path: Path) -> None:
    """Write a tree as NetCDF. Raises OSError where the disk is full, and leaves nothing then.

    HDF5 ends the process where it cannot write to a file, so it writes to memory.
    """
    memory = BytesIO()
    tree.to_netcdf(memory, engine="h5netcdf")
    content = memory.getvalue()
    passing = path.with_name(f".{path.name}.part")
    try:
        passing.write_bytes(content)
        os.replace(passing, path)
    finally:
        passing.unlink(missing_ok=True)
