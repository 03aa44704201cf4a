"""What a fit needs of this machine: versions, devices, folders, and what is wrong with them."""

import os
import platform
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from laddercast.data.datasets import LOCAL, cache_folder, local_folder

SHOWN = ("laddercast", "numpyro", "jax", "arviz", "numpy", "pandas")


def examine() -> tuple[list[tuple[str, str]], list[str]]:
    """All that was looked at, as `(name, finding)`, and the faults that stop a fit, with cures."""
    faults = _wrong_versions()
    devices = _devices(faults)
    findings = [(name, _version(name) or "not installed") for name in SHOWN]
    findings.insert(1, ("python", platform.python_version()))
    findings += [
        ("JAX devices", devices),
        ("CPU cores", str(_cores())),
        ("cache", f"{cache_folder()} ({_writable(cache_folder())})"),
        ("compiled", _compiled()),
        (LOCAL, _local()),
    ]
    return findings, faults


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _wrong_versions() -> list[str]:
    """Requirements of laddercast that are not installed, or have another version."""
    faults = []
    for requirement in map(Requirement, requires("laddercast") or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            what = "is not installed" if found is None else f"is {found}"
            needed = f"{requirement.name}{requirement.specifier}"
            faults.append(f'{requirement.name} {what}; run `pip install "{needed}"`')
    return faults


def _devices(faults: list[str]) -> str:
    try:
        import jax
        import jax.numpy as jnp

        devices = ", ".join(str(device) for device in jax.devices())
        with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
            computed = jnp.ones(2).sum()
        if computed.dtype != "float64" or float(computed) != 2.0:
            raise RuntimeError(f"1 + 1 came out as {computed!r}")
        import laddercast.inference.fitting  # noqa: F401 - all that a fit imports
    except Exception as error:
        # A broken installation raises nearly anything.
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        cure = "run `pip install --force-reinstall laddercast`"
        platforms = os.environ.get("JAX_PLATFORMS", "")
        if platforms and "cpu" not in platforms.split(","):
            cure = f"unset JAX_PLATFORMS (it is {platforms}), or add cpu to it"
        faults.append(f"JAX cannot compute for a fit ({reason}); {cure}")
        return "none that can be used"
    return devices


def _cores() -> int:
    # Those that this process may use, which a container or a batch system can limit.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _writable(folder: Path) -> str:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    able = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return "can be written" if able else f"cannot be written, which stops fetching; set {LOCAL}"


def _compiled() -> str:
    try:
        from laddercast.sampling.programs import SWITCH, folder
    except Exception:  # of a broken JAX, which is told above
        return "unknown"
    kept_in = folder()
    return f"not kept ({SWITCH} is off)" if kept_in is None else str(kept_in)


def _local() -> str:
    folder = local_folder()
    if folder is None:
        return "not set"
    return str(folder) if folder.is_dir() else f"{folder} (no such folder, so nothing is fetched)"
