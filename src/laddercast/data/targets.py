"""Checks of targets against the ladder that they are forecast from."""

from collections.abc import Iterable

import pandas as pd

from laddercast.data import words as c
from laddercast.data.faults import stop_on
from laddercast.data.writing import listed, no_such

TOO_SMALL = 100.0
"""A target below every rung by more than this factor is in other units than the ladder."""


def check_targets(
    targets: pd.DataFrame, rungs: pd.DataFrame, tasks: Iterable[str], name: str = "targets"
) -> None:
    """Raise ValueError for targets that cannot be meant of this ladder.

    `rungs` has `params, tokens` of each model (the index). Faults are a task that the ladder lacks,
    a size or length below every rung by more than 100 times, and a rung's name with another size.
    """
    faults = []
    tasks = [str(task) for task in tasks]
    if c.TASK in targets:
        absent = sorted(set(targets[c.TASK].astype(str)) - set(tasks))
        if absent:
            cure = "rename them, leave their rows out, or choose by tasks= (--tasks)"
            faults.append(
                f"{name}: {no_such('task', absent, tasks, 'the tasks of the ladder')}; {cure}"
            )
    ends = targets.groupby(c.MODEL)[[c.PARAMS, c.TOKENS]].max()
    for word, unit in ((c.PARAMS, "190M or 7B"), (c.TOKENS, "4B or 2T")):
        least = rungs[word].min()
        small = ends.index[ends[word] * TOO_SMALL < least]
        if len(small):
            shown = listed((f"{own} ({ends.loc[own, word]:,.0f})" for own in small), 5)
            faults.append(
                f"{name}: {word} of {shown}: below every rung by more than {TOO_SMALL:.0f} times, "
                f"the least is {least:,.0f}; give the whole number, or its unit, as in {unit}"
            )
    sizes = rungs[c.PARAMS].rename(str)
    for own in ends.index[ends.index.astype(str).isin(sizes.index)]:
        if ends.loc[own, c.PARAMS] != sizes[str(own)]:
            faults.append(
                f"{name}: {own} has {ends.loc[own, c.PARAMS]:,.0f} params, the rung of this name "
                f"{sizes[str(own)]:,.0f}; give the target another name"
            )
    stop_on(faults)
