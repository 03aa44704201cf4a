"""The result of a fit as a DataTree: what it holds, what a forecast reads, whether to trust it."""

import json
import warnings
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr

from laddercast import columns as c
from laddercast.design import Design, Frame, Labels, Observed

RHAT_POPULATION = 1.01
RHAT = 1.03
ESS_PARAMETERS = 400
ESS_FORECASTS = 1000

DIMS = {
    "walk_loss": ["interval", "curve"],
    "walk_accuracy": ["interval", "task"],
    "run_loss_shared": [c.MODEL],
    "run_accuracy_shared": [c.MODEL],
    "log_latent_loss": ["loss_cell"],
    "run_mean_accuracy": ["accuracy_cell"],
} | {
    name: ["curve"]
    for name in (
        "loss_level", "log_alpha", "log_beta", "share_e", "share_a", "log_run_loss",
        "log_checkpoint_loss", "alpha", "beta", "A", "B", "E",
    )
} | {
    name: [c.TASK]
    for name in (
        "accuracy_level", "gap", "log_lower", "log_slope", "log_run_accuracy",
        "log_checkpoint_accuracy", "a", "b", "k", "L0",
    )
}  # fmt: skip

LATENT = ("log_latent_loss", "run_mean_accuracy")


def as_tree(
    sites: dict[str, np.ndarray],
    log_likelihood: dict[str, np.ndarray],
    log_prior: dict[str, np.ndarray],
    sample_stats: dict[str, np.ndarray],
    design: Design,
    observed: Observed,
    labels: Labels,
    frame: Frame,
    tasks: pd.DataFrame,
    runs: pd.DataFrame,
) -> xr.DataTree:
    """The DataTree of a fit; arrays of draws are (chains, draws, ...), `runs` one row per model."""
    posterior = {
        name: value for name, value in sites.items() if not name.endswith(("_base", "_decentered"))
    }
    posterior |= _letters(posterior, design, frame, tasks[c.CHANCE].to_numpy(float))
    model, curve, task = (np.array(names) for names in labels)
    loss_cells = np.unique(design.loss_cell)
    accuracy_cells = np.unique(design.accuracy_cell)
    coords = {
        c.MODEL: model, c.TASK: task, "curve": curve,
        "interval": np.arange(design.walk.shape[1]),
    }  # fmt: skip
    tree = az.from_dict(
        {
            "posterior": posterior,
            "sample_stats": sample_stats,
            "log_likelihood": {
                "loss": log_likelihood["loss"][..., loss_cells],
                "accuracy": log_likelihood["accuracy"][..., accuracy_cells],
            },
            "observed_data": {
                "loss": observed.loss,
                "accuracy": observed.accuracy,
                "loss_spread": observed.loss_spread,
                "accuracy_spread": observed.accuracy_spread,
            },
            "constant_data": {
                c.CHANCE: tasks[c.CHANCE].to_numpy(float),
                c.ITEMS: tasks[c.ITEMS].to_numpy(float),
                c.PARAMS: runs[c.PARAMS].to_numpy(),
                c.TOKENS: runs[c.TOKENS].to_numpy(),
                "knots": frame.knots,
            },
        },
        coords=coords,
        dims=DIMS
        | {"loss": ["loss_row"], "accuracy": ["accuracy_row"]}
        | {c.CHANCE: [c.TASK], c.ITEMS: [c.TASK], c.PARAMS: [c.MODEL], c.TOKENS: [c.MODEL]}
        | {"knots": ["knot"]},
        check_conventions=False,
    )
    # A site's log prior is one number a draw, whatever dimensions the site itself has.
    tree["log_prior"] = xr.DataTree(
        az.dict_to_dataset(log_prior, sample_dims=["chain", "draw"], check_conventions=False)
    )
    named = {
        "loss_cell": (model[design.loss_cell_run], curve[design.loss_cell_curve]),
        "accuracy_cell": (model[design.accuracy_cell_run], task[design.accuracy_cell_task]),
    }
    cells = {name: _labelled(name, *pair) for name, pair in named.items()}
    rows = {
        "loss_row": _labelled("loss_row", *(x[design.loss_cell] for x in named["loss_cell"])),
        "accuracy_row": _labelled(
            "accuracy_row", *(x[design.accuracy_cell] for x in named["accuracy_cell"])
        ),
    }
    seen = {
        "loss_row": _labelled("loss_row", *(x[loss_cells] for x in named["loss_cell"])),
        "accuracy_row": _labelled(
            "accuracy_row", *(x[accuracy_cells] for x in named["accuracy_cell"])
        ),
    }
    for group, labelled in (
        ("posterior", cells),
        ("observed_data", rows),
        ("log_likelihood", seen),
    ):
        data = tree[group].to_dataset()
        for coordinates in labelled.values():
            data = data.assign_coords(coordinates)
        tree[group] = xr.DataTree(data)
    tree.attrs["frame"] = json.dumps(
        {"params": frame.params, "tokens": frame.tokens, "origin": frame.origin}
    )
    return tree


def _labelled(dim: str, model: np.ndarray, what: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    # Two cells of different kinds may share a dataset, so each has coordinates of its own.
    prefix = dim.split("_")[0]
    return {f"{prefix}_{c.MODEL}": (dim, model), f"{prefix}_{c.TASK}": (dim, what)}


def _letters(
    posterior: dict[str, Any], design: Design, frame: Frame, chance: np.ndarray
) -> dict[str, np.ndarray]:
    """The paper's letters, in natural units (N in parameters, D in tokens)."""
    p = {name: np.asarray(value) for name, value in posterior.items()}
    alpha, beta = np.exp(p["log_alpha"]), np.exp(p["log_beta"])
    level = np.exp(p["loss_level"])
    share_e, share_a = 1 / (1 + np.exp(-p["share_e"])), 1 / (1 + np.exp(-p["share_a"]))
    reference = level[..., design.task_curve]
    k = np.exp(p["log_slope"]) / reference
    b = 1 - p["gap"]
    return {
        "alpha": alpha,
        "beta": beta,
        "A": level * (1 - share_e) * share_a * frame.params**alpha,
        "B": level * (1 - share_e) * (1 - share_a) * frame.tokens**beta,
        "E": level * share_e,
        "k": k,
        "L0": reference + p["accuracy_level"] / k,
        "b": b,
        "a": np.minimum(chance * np.exp(p["log_lower"]), b) - b,
    }


def frame_of(fitted: xr.DataTree) -> Frame:
    """Reference sizes and knots of the ladder behind a fit."""
    stored = json.loads(fitted.attrs["frame"])
    knots = fitted["constant_data"]["knots"].to_numpy()
    return Frame(stored["params"], stored["tokens"], knots, stored["origin"])


def tasks_of(fitted: xr.DataTree) -> pd.DataFrame:
    """`chance, items` of a fit's tasks, indexed by task."""
    constant = fitted["constant_data"]
    names = pd.Index(constant[c.TASK].to_numpy().astype(str), name=c.TASK)
    return pd.DataFrame(
        {word: constant[word].to_numpy() for word in (c.CHANCE, c.ITEMS)}, index=names
    )


def complaints(tree: xr.DataTree, group: str = "posterior") -> list[str]:
    """Why the draws of `posterior` or `predictions` cannot be trusted; empty if they converged."""
    data = tree[group].to_dataset()
    found = []
    if group == "posterior":
        diverging = int(tree["sample_stats"]["diverging"].sum())
        if diverging:
            found.append(f"{diverging} divergences")
    if data.sizes["chain"] < 2:
        found.append("one chain cannot show convergence")
    forecasts = group == "predictions"
    limit = ESS_FORECASTS if forecasts else ESS_PARAMETERS
    rhat = az.rhat(data)
    ess = {kind: az.ess(data, method=kind) for kind in ("bulk", "tail")}
    for name in data.data_vars:
        population = forecasts or data[name].ndim == 2
        worst = float(rhat[name].max())
        bound = RHAT_POPULATION if population else RHAT
        # `not below` also catches NaN, which constant or infinite draws give.
        if not worst < bound:
            found.append(f"{name}: R-hat {worst:.3f} (needs < {bound})")
        for kind, values in ess.items():
            least = float(values[name].min())
            if not least > limit:
                found.append(f"{name}: {kind} ESS {least:.0f} (needs > {limit})")
    return found


def mark(tree: xr.DataTree, found: list[str], what: str = "the fit") -> xr.DataTree:
    """Record convergence in the attributes; warn where it failed."""
    tree.attrs["converged"] = int(not found)
    tree.attrs["complaints"] = "; ".join(found)
    if found:
        warnings.warn(
            f"{what} has not converged: {'; '.join(found)}. "
            "Do not rely on it; give more warmup or draws, or more rungs",
            stacklevel=3,
        )
    return tree
