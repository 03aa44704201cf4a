"""The words of a ladder's table: the same name is column, site, dimension and argument."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MODEL = "model"
PARAMS = "params"
TOKENS = "tokens"
TASK = "task"
LOSS = "loss"
REFERENCE_LOSS = "reference_loss"
ACCURACY = "accuracy"
CHANCE = "chance"
ITEMS = "items"
RECIPE = "recipe"
SEED = "seed"
FLOPS = "flops"
CHECKPOINTS = "checkpoints"
TASK_CE = "task_ce"
LOSS_KIND = "loss_kind"

LADDER_REQUIRED = (MODEL, PARAMS, TOKENS, TASK)

MEASURED = (ACCURACY, LOSS, REFERENCE_LOSS)
"""A ladder also needs one of these; `reference_loss` only beside another."""

TARGET_REQUIRED = (MODEL, PARAMS, TOKENS)

OPTIONAL = (RECIPE, SEED, FLOPS, CHECKPOINTS, TASK_CE, LOSS_KIND, CHANCE, ITEMS)

KNOWN = (*LADDER_REQUIRED, *MEASURED, *OPTIONAL)

TEXT = (MODEL, TASK, RECIPE, LOSS_KIND)

FORECAST_COLUMNS = (
    MODEL, PARAMS, TOKENS, TASK, "quantity", "mean", "sd",
    "q025", "q10", "q25", "q50", "q75", "q90", "q975", "measured",
)  # fmt: skip

ALL = "all"
"""In the column `task`, the mean over the cells of all tasks."""

QUANTILES = {
    "q025": 0.025, "q10": 0.10, "q25": 0.25, "q50": 0.50,
    "q75": 0.75, "q90": 0.90, "q975": 0.975,
}  # fmt: skip

INTERVALS = {50: ("q25", "q75"), 80: ("q10", "q90"), 95: ("q025", "q975")}
"""Central intervals in percent, and the quantiles at their ends."""


def measured(table: "pd.DataFrame", word: str) -> bool:
    """Whether the table has any measurement of this quantity."""
    return word in table and bool(table[word].notna().any())


def main_quantity(table: "pd.DataFrame") -> str:
    """What a table with a column `quantity` is mostly read for: accuracy where it has any."""
    return ACCURACY if not len(table) or (table["quantity"] == ACCURACY).any() else LOSS


def overall(scores: "pd.DataFrame") -> "pd.DataFrame":
    """The scores over all tasks, of accuracy where there are any, else of loss."""
    return scores[(scores["quantity"] == main_quantity(scores)) & (scores[TASK] == ALL)]
