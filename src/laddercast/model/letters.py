"""What draws of a posterior say in natural units: the paper's letters, and scales of noise."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import expit

from laddercast.model.design import Frame
from laddercast.model.discrepancy import scale_of
from laddercast.model.laws import ends
from laddercast.model.likelihood import FLOOR


def letters(posterior: Mapping[str, Any], frame: Frame, chance: Any) -> dict[str, Any]:
    """Letters from draws (chains, draws, ...) of a route's sites; N in parameters, D in tokens.

    `chance` is (tasks,). `a, b` of any route to accuracy; `A, B, E, alpha, beta` of those that go
    through a loss, and `k, L0` of those that lead from it to accuracy; of `direct` only the
    exponents, and `rise`, of the logit as its law falls. Of several recipes, what varies with them
    is (..., recipes, tasks). SDs
    `run_*`, `checkpoint_*` and `discrepancy_*` are of the logs of losses; those of accuracy are in
    units of sqrt((p (1 - p) + .1) / items), and its discrepancy in logits.
    """
    p = posterior
    found = scales_of_noise(p)
    if "logit_gap" in p:
        lower, upper = (np.asarray(x) for x in ends(p["log_lower"], p["logit_gap"], chance))
        found |= {"b": upper, "a": lower - upper}
    several = any(name.endswith("_recipe") for name in p)

    def value(name: str) -> Any:
        """A site (..., tasks), of several recipes (..., recipes, tasks) or (..., 1, tasks)."""
        if f"{name}_recipe_task" in p:
            return p[f"{name}_recipe_task"]
        if not several:
            return p[name]
        return p[name][..., None, :] + p.get(f"{name}_recipe", np.zeros(1))[..., None]

    def common(name: str) -> Any:
        """A site (...) that all tasks have in common, of one recipe or of each (..., recipes)."""
        return p[name][..., None] if several else p[name]

    if "log_rise" in p:
        alpha, beta = np.exp(value("log_rise_alpha")), np.exp(value("log_rise_beta"))
        return found | {"alpha": alpha, "beta": beta, "rise": np.exp(value("log_rise"))}
    if "log_alpha" in p:
        level, q = np.exp(value("log_loss_level")), common("q")[..., None]
        share_e, share_a = expit(value("logit_share_e")), expit(value("logit_share_a"))
        alpha, beta = np.exp(value("log_alpha")), np.exp(value("log_beta"))
    else:
        level, q = (
            np.exp(p.get("log_reference_level_recipe", p["log_reference_level"])),
            common("q"),
        )
        share_e = expit(common("logit_reference_share_e"))
        share_a = expit(common("logit_reference_share_a"))
        alpha, beta = (
            common(f"reference_{word}") * np.exp(p.get(f"reference_{word}_recipe", 0.0))
            for word in ("alpha", "beta")
        )
    found |= {
        "alpha": alpha,
        "beta": beta,
        "A": level * (1 - share_e) * share_a ** (1 / q) * frame.params**alpha,
        "B": level * (1 - share_e) * (1 - share_a) ** (1 / q) * frame.tokens**beta,
        "E": level * share_e,
    }
    if "log_slope" not in p:
        return found
    # With several recipes, slopes are of the loss over that of all: its level is the task's.
    read = level[..., None]
    if "log_loss_level" in p:
        read = np.exp(p["log_loss_level"][..., None, :] if several else p["log_loss_level"])
    k = np.exp(value("log_slope")) / read
    return found | {"k": k, "L0": read + value("logit_level") / k}


def scales_of_noise(p: Mapping[str, Any]) -> dict[str, Any]:
    """Scales of a run's effect, of one checkpoint about that, and of discrepancy, by quantity."""
    found: dict[str, tuple[Any, Any, Any]] = {}
    for quantity in ("loss", "accuracy"):
        if f"log_noise_{quantity}" in p:
            found[quantity] = (
                np.exp(p[f"log_noise_{quantity}"]), p[f"logit_share_checkpoint_{quantity}"],
                np.asarray(scale_of(p[f"log_walk_{quantity}"])),
            )  # fmt: skip
    if "noise_reference" in p:
        found["reference_loss"] = (
            p["noise_reference"], p["logit_share_checkpoint_reference"], p["walk_reference_scale"],
        )  # fmt: skip
    scales: dict[str, Any] = {}
    for quantity, (noise, logit_share, walk) in found.items():
        share, floor = expit(logit_share), FLOOR.get(quantity, 0.0)
        scales |= {
            f"run_{quantity}": np.hypot(noise * np.sqrt(1 - share), floor),
            f"checkpoint_{quantity}": np.hypot(noise * np.sqrt(share), floor),
            f"discrepancy_{quantity}": walk,
        }
    return scales
