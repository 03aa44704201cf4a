"""The result of a fit as a DataTree: what it holds, and what a forecast reads of it."""

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from arviz_base import dict_to_dataset, from_dict

from laddercast.data import words as c
from laddercast.model.design import MEASURED, QUANTITIES, Design, Frame, Labels, Observed, cells

DIMS: dict[str, list[str]] = {
    "walk_loss": ["interval", c.TASK],
    "walk_reference": ["interval"],
    "walk_accuracy": ["interval", c.TASK],
    "run_loss_shared": [c.MODEL],
    "run_accuracy_shared": [c.MODEL],
} | {
    name: [c.TASK]
    for name in (
        "loss_level", "log_alpha", "log_beta", "share_e", "share_a", "log_noise_loss",
        "share_checkpoint_loss", "accuracy_level", "logit_gap", "log_lower", "log_slope",
        "log_rise", "log_power", "share_rest", "log_noise_accuracy", "share_checkpoint_accuracy",
        "log_walk_loss", "log_walk_accuracy",
    )
}  # fmt: skip
"""Dimensions of sites beside chain and draw; those not named have none."""


def as_tree(
    sites: dict[str, np.ndarray],
    log_likelihood: dict[str, np.ndarray],
    log_prior: dict[str, np.ndarray],
    sample_stats: dict[str, np.ndarray],
    *,
    design: Design,
    observed: Observed,
    labels: Labels,
    frame: Frame,
    tasks: pd.DataFrame,
    runs: pd.DataFrame,
) -> xr.DataTree:
    """The DataTree of a route's draws (chains, draws, ...); `runs` has one row per model.

    Of sites and log likelihoods in arrays that were padded, the design's own part is kept.
    """
    model, task = (np.array(names) for names in labels)
    length = {c.MODEL: len(model), c.TASK: len(task), "interval": design.walk.shape[1]}

    def own_part(name: str) -> Any:
        return (..., *(slice(length[dim]) for dim in DIMS.get(name, ())))

    posterior = {
        name: value[own_part(name)]
        for name, value in sites.items()
        if not name.endswith("_decentered")
    }
    posterior |= letters(posterior, frame, tasks[c.CHANCE].to_numpy(float))
    points = {
        f"point_{c.MODEL}": ("point", model[design.run]),
        f"point_{c.TOKENS}": ("point", np.exp(design.log_tokens) * frame.tokens),
    }
    seen = {quantity: getattr(design, quantity) for quantity in QUANTITIES}
    data: dict[str, np.ndarray] = {}
    dims: dict[str, list[str]] = {}
    for quantity in QUANTITIES:
        if quantity not in log_likelihood:
            continue
        last = [] if quantity == c.REFERENCE_LOSS else [c.TASK]
        value = getattr(observed, MEASURED[quantity])
        value = np.exp(value) if MEASURED[quantity] != quantity else value
        value = np.where(seen[quantity].at, value, np.nan)
        spread = np.where(
            seen[quantity].spread_dof > 0, getattr(observed, f"{quantity}_spread"), np.nan
        )
        data |= {
            quantity: value if last else value[:, 0],
            f"{quantity}_spread": spread if last else spread[:, 0],
        }
        dims |= {quantity: ["point", *last], f"{quantity}_spread": [c.MODEL, *last]}
    tree = from_dict(
        {
            "posterior": posterior,
            "sample_stats": sample_stats,
            "observed_data": data,
            "constant_data": {
                c.CHANCE: tasks[c.CHANCE].to_numpy(float),
                c.ITEMS: tasks[c.ITEMS].to_numpy(float),
                c.PARAMS: runs[c.PARAMS].to_numpy(),
                c.TOKENS: runs[c.TOKENS].to_numpy(),
                "knots": frame.knots,
            },
        },
        coords={c.MODEL: model, c.TASK: task, "interval": np.arange(length["interval"])},
        dims={name: own for name, own in DIMS.items() if name in posterior}
        | {name: [c.TASK] for name in ("k", "L0", "a", "b", "rise")}
        | {name: [c.TASK] for name in ("A", "B", "E", "alpha", "beta") if "log_alpha" in sites}
        | dims
        | {c.CHANCE: [c.TASK], c.ITEMS: [c.TASK], c.PARAMS: [c.MODEL], c.TOKENS: [c.MODEL]}
        | {"knots": ["knot"]},
        check_conventions=False,
    )
    tree["observed_data"] = xr.DataTree(tree["observed_data"].to_dataset().assign_coords(points))
    # A site's log prior is one number a draw, whatever dimensions the site itself has.
    tree["log_prior"] = xr.DataTree(
        dict_to_dataset(log_prior, sample_dims=["chain", "draw"], check_conventions=False)
    )
    tree["log_likelihood"] = xr.DataTree(_of_cells(log_likelihood, design, model, task))
    tree.attrs["frame"] = json.dumps(
        {"params": frame.params, "tokens": frame.tokens, "origin": frame.origin}
    )
    return tree


def _of_cells(
    log_likelihood: dict[str, np.ndarray], design: Design, model: np.ndarray, task: np.ndarray
) -> xr.Dataset:
    """Log likelihoods of what was measured, a number a draw and cell: "model, task" or "model"."""
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    for quantity, value in log_likelihood.items():
        run, column = np.nonzero(cells(design, quantity))
        cell, common = f"{quantity}_cell", quantity == c.REFERENCE_LOSS
        # Two cells of different kinds share a dataset, so each has a coordinate of its own.
        if len(run) == value[0, 0].size:
            kept = value.reshape(*value.shape[:2], -1)  # of many tasks, a copy is large
        else:
            kept = value[..., run] if common else value[..., run, column]
        variables[quantity] = (("chain", "draw", cell), kept)
        # One label, as an index: ArviZ stacks cells of all kinds for prior sensitivity.
        names = (
            model[run]
            if common
            else [", ".join(x) for x in zip(model[run], task[column], strict=True)]
        )
        coords[cell] = (cell, np.asarray(names))
    chains, draws = value.shape[:2]
    coords |= {"chain": np.arange(chains), "draw": np.arange(draws)}
    return xr.Dataset(variables, coords=coords)


def letters(
    posterior: dict[str, np.ndarray], frame: Frame, chance: np.ndarray
) -> dict[str, np.ndarray]:
    """The paper's letters, in natural units (N in parameters, D in tokens)."""
    p = posterior
    b = 1 / (1 + np.exp(p["logit_gap"]))
    found = {"b": b, "a": np.minimum(chance * np.exp(p["log_lower"]), b) - b}
    if "log_rise" in p:
        alpha, beta = np.exp(p["log_alpha"]), np.exp(p["log_beta"])
        return found | {"alpha": alpha, "beta": beta, "rise": np.exp(p["log_rise"])}
    if "log_alpha" in p:
        level, share_e, share_a = np.exp(p["loss_level"]), p["share_e"], p["share_a"]
        alpha, beta = np.exp(p["log_alpha"]), np.exp(p["log_beta"])
        q = p["q"][..., None]
    else:
        level = np.exp(p["reference_level"])
        share_e, share_a = p["reference_share_e"], p["reference_share_a"]
        alpha, beta = p["reference_alpha"], p["reference_beta"]
        q = p["q"]
    read = np.exp(p["loss_level"]) if "loss_level" in p else level[..., None]
    share_e, share_a = 1 / (1 + np.exp(-share_e)), 1 / (1 + np.exp(-share_a))
    k = np.exp(p["log_slope"]) / read
    return found | {
        "alpha": alpha,
        "beta": beta,
        "A": level * (1 - share_e) * share_a ** (1 / q) * frame.params**alpha,
        "B": level * (1 - share_e) * (1 - share_a) ** (1 / q) * frame.tokens**beta,
        "E": level * share_e,
        "k": k,
        "L0": read + p["accuracy_level"] / k,
    }


def routes_of(fitted: xr.DataTree) -> dict[str, xr.DataTree]:
    """The tree of each route of a fit alone, by name; the first is the fit's own."""
    others = {name: child for name, child in fitted.children.items() if "posterior" in child}
    first = fitted.copy()
    for name in others:
        del first[name]
    return {str(fitted.attrs["route"]): first} | others


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


def rungs_of(fitted: xr.DataTree) -> pd.DataFrame:
    """`params, tokens` of the runs behind a fit, one row per model (its index)."""
    constant = fitted["constant_data"]
    names = pd.Index(constant[c.MODEL].to_numpy().astype(str), name=c.MODEL)
    return pd.DataFrame(
        {word: constant[word].to_numpy().astype(float) for word in (c.PARAMS, c.TOKENS)},
        index=names,
    )
