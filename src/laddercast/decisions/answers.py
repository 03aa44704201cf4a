"""What plans and allocations say, in sentences and small tables."""

import pandas as pd

from laddercast.data import words as c
from laddercast.data.writing import STYLES, listed, short_number

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Sizes, over the best one, of which the price is told."""

CAUTION = (
    "This holds for the hyperparameters of the rungs: with another learning rate small models can "
    "rank otherwise (arXiv 2512.24503)."
)
"""Said of each comparison of recipes."""


def unit_of(quantity: str) -> str:
    """In what regrets, and SDs of a plan, are told."""
    return "%" if quantity == c.LOSS else "points"


def allocation_sentences(table: pd.DataFrame) -> list[str]:
    """The sizes that are as good as the best, the best with its interval, tasks at chance.

    `table` as `allocate` gives it.
    """
    attrs, unit = table.attrs, unit_of(table.attrs["quantity"])
    what, epsilon = _what(attrs["task"], attrs["quantity"]), f"{100 * attrs['epsilon']:g} {unit}"
    chosen = table[table["in_set"]]
    if len(chosen):
        params, tokens = (_range(chosen[word]) for word in (c.PARAMS, c.TOKENS))
        first = (
            f"{what}: within {epsilon} of the best with probability {attrs['probability']:g}: "
            f"{params} params ({tokens} tokens)"
        )
    else:
        first = f"{what}: no size is surely within {epsilon} of the best"
    best, ratio = (attrs["optimum"][word] for word in (c.PARAMS, "tokens_per_param"))
    second = (
        f"best size: {short_number(best['q50'])} params (90 %: {short_number(best['q05'])} to "
        f"{short_number(best['q95'])}), {ratio['q50']:.3g} tokens per parameter "
        f"({ratio['q05']:.3g} to {ratio['q95']:.3g})"
    )
    found = [first, second]
    if attrs["at_chance"]:
        found.append(f"at chance in all rungs: {listed(attrs['at_chance'], 10)}")
    return found


def prices(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of an allocation at the best size and at some times it, with that `factor`."""
    rows = []
    for factor in FACTORS:
        wanted = factor * table.attrs["best"][c.PARAMS]
        if table[c.PARAMS].min() <= wanted * 1.1 and wanted <= 1.1 * table[c.PARAMS].max():
            row = table.loc[(table[c.PARAMS] / wanted - 1).abs().idxmin()]
            rows.append({"factor": factor, **row.to_dict()})
    return pd.DataFrame(rows)


def goal_sentence(found: pd.Series) -> str:
    """The least compute for a goal, as `flops_for` gives it."""
    attrs, style = found.attrs, STYLES[found.attrs["quantity"]]
    what = _what(attrs["task"], attrs["quantity"])
    side = "at most" if attrs["quantity"] == c.LOSS else "at least"
    return (
        f"{what} of {side} {style.value(attrs['goal'])}{style.unit} with probability "
        f"{attrs['probability']:g}: {found[c.FLOPS]:.2g} FLOPs, {short_number(found[c.PARAMS])} "
        f"params on {short_number(found[c.TOKENS])} tokens"
    )


def plan_sentence(plan: pd.DataFrame) -> str:
    """What the chosen rungs of a plan, as `plan_rungs` gives it, do to the forecast's SD."""
    chosen = plan[plan["order"].notna()]
    if chosen.empty:
        return f"none of {len(plan)} candidates makes the forecast any narrower"
    before = plan["variance_before"].max() ** 0.5
    return f"SD of the targets' forecast now: {before:.2f} {unit_of(plan.attrs['quantity'])}"


def chosen_rungs(plan: pd.DataFrame) -> pd.DataFrame:
    """Rows of a plan that were chosen, in order, with the compute `spent` by then and the `sd`."""
    chosen = plan[plan["order"].notna()].sort_values("order")
    return chosen.assign(spent=chosen[c.FLOPS].cumsum(), sd=chosen["variance_after"] ** 0.5)


def _what(task: str, quantity: str) -> str:
    return {c.ALL: f"mean {quantity} over tasks", c.LOSS: "mean loss"}.get(
        task, f"{quantity} of {task}"
    )


def _range(values: pd.Series) -> str:
    ends = (short_number(float(end)) for end in (values.min(), values.max()))
    return " to ".join(dict.fromkeys(ends))
