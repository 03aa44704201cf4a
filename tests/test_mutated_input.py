"""Whatever was done to a file, it is read soundly or refused by an error that names it.

What is done to which files is in `benchmarks/mutated_inputs.py`, which tries as many as one likes.
"""

import random
import sys
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

import laddercast as lc

pytestmark = pytest.mark.slow

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
mutated_inputs = import_module("mutated_inputs")
sound_inputs = import_module("sound_inputs")

EACH = 20


@pytest.mark.parametrize("name", mutated_inputs.READERS)
def test_what_is_changed_below_is_sound(name):
    assert mutated_inputs.outcome(name, {}) == ("read", "")


@pytest.mark.parametrize("name", mutated_inputs.READERS)
def test_changed_input_is_read_soundly_or_refused(name):
    for number in range(EACH):
        made, told = mutated_inputs.outcome(*mutated_inputs.changed_input(0, number, name))
        assert made in mutated_inputs.SOUND, f"--reader {name!r} --only {number}: {told}"


def test_an_input_is_made_again_from_its_number():
    once, again = (mutated_inputs.changed_input(3, 17) for _ in range(2))
    assert once == again != mutated_inputs.changed_input(4, 17)


def test_a_reader_that_breaks_is_found(monkeypatch, capsys):
    def broken(at: Path) -> pd.DataFrame:
        return {}["targets"]  # as of a key that is not there

    reader = mutated_inputs.READERS["targets"]._replace(read=broken)
    monkeypatch.setitem(mutated_inputs.READERS, "targets", reader)
    monkeypatch.setattr(sys, "argv", ["mutated_inputs", "--count", "2", "--reader", "targets"])
    assert mutated_inputs.main() == 1
    told = capsys.readouterr().out
    assert "traceback: --seed 0 --only 1 (targets): KeyError: 'targets'" in told


# Presets in Python

NO_KEYS = ["lm_eval/arc_easy/bpb", "", "{", "}{", "{}", "{0}", "{other}", "{task!r}", "{{task}}"]


@pytest.mark.parametrize("field", ["loss", "accuracy", "log_soft"])
@pytest.mark.parametrize("key", NO_KEYS)
def test_a_key_without_the_place_of_a_task_is_refused(key, field):
    given = {"loss": "{task}", "loss_kind": "mine", "accuracy": ("{task}",)}
    with pytest.raises(ValueError, match=r"where a task's name stands|give a text"):
        lc.Keys(**(given | {field: (key,) if field == "accuracy" else key}))


TEXTS = ["{task}", "lm_eval/{task}/bpb", "[{task}", "(.+{task}", "{task}\\", "{other}", "", None, 1]
VALUES = [*TEXTS, "val/acc", ("a", "b"), ["a", 1], {}, {"t": 0.25}, {"t": (0.25, 100)}, {1: 2}]
VALUES += [{"t": {"a": 0.5, "b": 0.5}}, {"t": {"t": 1.0}}, {"t": None}, 10**400, float("nan"), b""]
EXPRESSIONS = [r"(\d+)M-(\d+)", "100M-(?P<x>.+)", ".*", "", "(?i)1.*", "(", "[", "a{2", "\\", 3]
NAMES = [r"\1-\2", r"\g<x>", r"\g<0>", "one", "", r"\9", r"\g<y>", "\\", "\0", None]


def test_presets_of_anything_are_refused_or_read():
    """Fields of any type: a preset of them reads, or each object says what is wrong with it."""
    rng = random.Random(0)
    made, refused = [], []
    for _ in range(400):
        loss, kind, accuracy, log_soft = (rng.choice([*TEXTS, *["{task}"] * 30]) for _ in range(4))
        fields = [name for name in lc.Preset.__dataclass_fields__ if name != "keys"]
        others = {name: rng.choice(VALUES) for name in rng.sample(fields, rng.choice((0, 1, 1, 2)))}
        try:
            keys = lc.Keys(loss, kind, accuracy, log_soft) if rng.random() < 0.9 else None
            run = rng.choice([*EXPRESSIONS, *[r"(\d+)M-(\d+)"] * 30])
            size = lc.Size(run, rng.choice([*NAMES, *["one"] * 30]), rng.choice((10**8, 1e8, 0)))
            preset = lc.Preset(keys, **({"sizes": size} | others))
        except ValueError as error:
            refused.append(error)
        else:
            made.append(preset)
    assert all(isinstance(x, tuple) for one in made for x in (one.keys, one.sizes, one.tokens))
    assert {type(error) for error in refused} == {ValueError}
    assert {str(x).split()[0].strip(":") for x in refused} == {"keys", "size", "preset"}
    assert len(made) > 10
    assert len(refused) > 100


def test_a_preset_of_any_sound_fields_reads_or_says_what_the_log_lacks():
    rng = random.Random(1)
    files = mutated_inputs.READERS["levanter"].files
    seen = set()
    for _ in range(40):
        keys = lc.Keys("lm_eval/{task}/bpb", "mine", rng.choice(["{task}", "lm_eval/{task}/acc"]))
        preset = lc.Preset(
            keys,
            task_keys=rng.choice(({}, {"easy": "arc_easy"}, {"easy": "absent"})),
            accuracy=rng.choice(({}, {"boolq": "lm_eval/boolq/acc"}, {"absent": "{task}"})),
            aggregates=rng.choice(({}, {"mean": {"arc_easy": 0.5, "boolq": 0.5}})),
            tasks=rng.choice(({}, {"arc_easy": 0.25})),
            sizes=lc.Size(rng.choice((".*", r"(\d+)M-(\d+)")), r"\g<0>", 10**8),
        )

        def read(at: Path, preset: lc.Preset = preset) -> lc.Ladder:
            return lc.read_wandb(at, preset, at / "../manifest.csv", rungs="every")

        mutated_inputs.READERS["mine"] = mutated_inputs.Reader(read, files)
        made, told = mutated_inputs.outcome("mine", {})
        assert made in mutated_inputs.SOUND | {"no place named"}, told
        seen.add(made)
    del mutated_inputs.READERS["mine"]
    assert "read" in seen
