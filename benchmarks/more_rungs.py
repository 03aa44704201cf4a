"""Whether more rungs of one tracker folder forecast better, and what the choice of tasks does.

`python benchmarks/more_rungs.py`, on the logs in LADDERCAST_DATA/olmo-ladder: mean errors, in
points, of the 7B-4T and 13B-5T by task, from 16 and from all 30 runs, of three tasks and of eight,
with the share of measurements inside 80 % intervals and their width.
"""

import os
import sys
from pathlib import Path

import laddercast as lc

DATA = Path(__file__).parents[2] / "shared" / "data"
THREE = ["mmlu", "hellaswag", "arc_easy"]
EIGHT = [*THREE, "arc_challenge", "piqa", "csqa", "socialiqa", "openbookqa"]
SIXTEEN = [f"{size}-{n}xC" for size in ("190M", "370M", "760M", "1.3B") for n in (1, 2, 5, 10)]


def main() -> None:
    """Fit each, print its scores."""
    logs = Path(os.environ.get("LADDERCAST_DATA", DATA)) / "olmo-ladder"
    for tasks in (THREE, EIGHT):
        ladder = lc.read_wandb(logs, preset="olmo", tasks=tasks)
        rungs, targets = ladder.split(hold_out=["7B-4T", "13B-5T"])
        for kept in (rungs.keep(SIXTEEN), rungs):
            forecast = lc.forecast(lc.fit(kept, progress=False), targets)
            scores = lc.score(forecast)
            scores = scores[scores["quantity"] == "accuracy"].set_index("task")
            converged = "" if forecast.attrs["converged"] else " (not converged)"
            print(f"{len(tasks)} tasks, {len(kept.models)} rungs{converged}")
            print(scores[["error", "cover80", "width80"]].round(2).to_string())
            sys.stdout.flush()


if __name__ == "__main__":
    main()
