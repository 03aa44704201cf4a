"""What is known of each format, as data: keys, sizes, tasks, definitions of bits per byte."""

import re
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from laddercast.data.loaders.fields import (
    as_chances,
    as_mapping,
    as_objects,
    as_text,
    as_texts,
    as_weights,
    build_objects,
    check_fields,
    has_braces,
    raise_faults,
)
from laddercast.data.loaders.shapes import number

WITHOUT_SPACE = "bpb without space"
WITH_SPACE = "bpb with space"
BARE_CHOICE = "bpb of bare choice"
"""Values of `loss_kind`: -log2 p(right answer) over its bytes without or with the space before it,
or over the bare string of the choice. For a short answer they differ by a quarter."""

FORMATS = ("wandb:olmo", "wandb:olmo-core", "wandb:levanter", "wandb", "lm-eval", "olmes")
"""What the command line's `--from` takes; `wandb` with a preset of the user's."""

ACC_TASKS = ("boolq", "winogrande")
"""Tasks scored by plain accuracy: their answers are equally long, or the same."""


@dataclass(frozen=True)
class Size:
    """Runs of one size: those whose whole name `run` (a regular expression) matches.

    `model` is the name in the ladder and may hold groups of `run`; `flops_per_token` is training
    compute (6 x params where not known). Raises ValueError that names every fault.

    >>> size = lc.Size("tiny-.*", "tiny", params=190354176)
    """

    run: str
    model: str
    params: int
    flops_per_token: float | None = None

    def __post_init__(self) -> None:
        """Check the expression, that it has the groups that `model` names, and the numbers."""
        faults = []
        try:
            with warnings.catch_warnings():
                # Of what may mean something else in a Python to come.
                warnings.simplefilter("ignore", FutureWarning)
                re.sub(self.run, self.model, "")
        except (re.error, IndexError, TypeError, OverflowError, RecursionError) as error:
            faults.append(f"{error}; give a regular expression, and a name with its groups")
        for word in ("params", "flops_per_token"):
            given = getattr(self, word)
            if (given is not None or word == "params") and not (number(given) or 0) > 0:
                faults.append(f"{word} is no number above 0")
        raise_faults(f"size {self.run!r}, {self.model!r}", faults)


@dataclass(frozen=True)
class Keys:
    """One set of keys, each with `{task}` in it, and which bits per byte `loss` is.

    `accuracy` is one key, or several in order of preference; `log_soft` is minus the task
    cross-entropy. Either of `loss` and `accuracy` may be left out. Raises ValueError that names
    every fault.

    >>> keys = lc.Keys("val/{task}/bpb", "bpb with space", accuracy="val/{task}/acc")
    >>> alone = lc.Keys(accuracy="val/{task}/acc")
    """

    loss: str | None = None
    loss_kind: str | None = None
    accuracy: tuple[str, ...] = ()
    log_soft: str | None = None

    def __post_init__(self) -> None:
        """Check that each key has the place of a task's name."""
        faults: list[str] = []
        object.__setattr__(self, "accuracy", as_texts(self.accuracy, "accuracy", faults))
        for word in ("loss", "loss_kind", "log_soft"):
            as_text(getattr(self, word), word, faults)
        if not faults:
            faults = [
                f"{key!r}: write {{task}} where a task's name stands, and no other braces"
                for key in self.patterns
                if "{task}" not in key or has_braces(key)
            ]
        if not faults and not self.losses and not self.accuracy:
            faults.append("neither loss nor accuracy; give one of both")
        raise_faults("keys", faults)

    @property
    def losses(self) -> tuple[str, ...]:
        """The key of the loss, if there is one."""
        return () if self.loss is None else (self.loss,)

    @property
    def patterns(self) -> tuple[str, ...]:
        """All keys."""
        return (*self.losses, *self.accuracy, *(() if self.log_soft is None else (self.log_soft,)))


@dataclass(frozen=True)
class Preset:
    """How one trainer's tracker export becomes a ladder.

    `keys` in order of preference; the first that all runs have is used. `task_keys` maps tasks to
    their names in keys (empty: every task the keys match, by that name). `accuracy` holds tasks
    whose accuracy has another key. `aggregates` are weighted means of other tasks. `tasks` has
    chance and items, or chance alone. Tokens are in the first column of `tokens` present, else
    `step` x `batch_tokens`; the run is in the first column of `run` present, else the file's name.
    Where several are meant, one may be given. Raises ValueError that names every fault.

    >>> keys = lc.Keys("val/{task}/bpb", "bpb with space", accuracy="val/{task}/acc")
    >>> preset = lc.Preset(keys, tokens="train/tokens", params="num_params")
    """

    keys: tuple[Keys, ...]
    task_keys: Mapping[str, str] = field(default_factory=dict)
    accuracy: Mapping[str, str] = field(default_factory=dict)
    aggregates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tasks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sizes: tuple[Size, ...] = ()
    reference_loss: str | None = None
    tokens: tuple[str, ...] = ("throughput/total_tokens", "throughput/total tokens")
    step: str = "_step"
    batch_tokens: str = "batch_size_in_tokens"
    run: tuple[str, ...] = ("run", "run_name", "name", "Name")
    params: str | None = None

    def __post_init__(self) -> None:
        """Check each field, and keep one where several are meant as a tuple of one."""
        faults: list[str] = []
        checked: dict[str, object] = {
            "keys": as_objects(self.keys, Keys, "keys", faults),
            "sizes": as_objects(self.sizes, Size, "sizes", faults),
            "tasks": as_chances(self.tasks, faults),
            "aggregates": as_weights(self.aggregates, faults),
        }
        checked |= {word: as_texts(getattr(self, word), word, faults) for word in ("tokens", "run")}
        for word in ("task_keys", "accuracy"):
            texts = checked[word] = as_mapping(getattr(self, word), word, faults)
            for task, key in texts.items():
                as_text(key, f"{word}.{task}", faults)
                if isinstance(key, str) and has_braces(key):
                    faults.append(f"{word}.{task} {key!r}: no braces but {{task}}")
        for word in ("reference_loss", "params", "step", "batch_tokens"):
            as_text(getattr(self, word), word, faults)
        if not faults and not checked["keys"]:
            faults.append("keys: none; give lc.Keys, or in TOML a table [[keys]]")
        for word, value in checked.items():
            object.__setattr__(self, word, value)
        raise_faults("preset", faults)


OLMO = Preset(
    keys=(
        Keys(
            loss="eval/downstream_bpb/{task}_bpb",
            loss_kind=WITHOUT_SPACE,
            accuracy=("eval/downstream/{task}_len_norm",),
            log_soft="eval/downstream_soft_log/{task}_soft_log",
        ),
    ),
    # Test splits where they have labels, as published.
    task_keys={
        "hellaswag": "hellaswag_val_rc_5shot",
        "arc_challenge": "arc_challenge_test_rc_5shot",
        "arc_easy": "arc_easy_test_rc_5shot",
        "piqa": "piqa_val_rc_5shot",
        "csqa": "csqa_val_rc_5shot",
        "socialiqa": "socialiqa_val_rc_5shot",
        "openbookqa": "openbookqa_test_rc_5shot",
        "winogrande": "winogrande_val_rc_5shot",
        "boolq": "boolq_val_rc_5shot",
        "mmlu_stem": "mmlu_stem_test_rc_5shot",
        "mmlu_humanities": "mmlu_humanities_test_rc_5shot",
        "mmlu_social_sciences": "mmlu_social_sciences_test_rc_5shot",
        "mmlu_other": "mmlu_other_test_rc_5shot",
    },
    accuracy={"boolq": "eval/downstream/{task}_acc"},
    aggregates={
        "mmlu": {
            "mmlu_stem": 0.215,
            "mmlu_humanities": 0.335,
            "mmlu_social_sciences": 0.219,
            "mmlu_other": 0.231,
        }
    },
    tasks={
        "mmlu": (1 / 4, 14042),
        "hellaswag": (1 / 4, 10042),
        "arc_challenge": (1 / 4, 1172),
        "arc_easy": (1 / 4, 2376),
        "piqa": (1 / 2, 1838),
        "csqa": (1 / 5, 1221),
        "socialiqa": (1 / 3, 1954),
        "openbookqa": (1 / 4, 500),
        "winogrande": (1 / 2, 1267),
        "boolq": (1 / 2, 3270),
        "mmlu_stem": (1 / 4, 3018),
        "mmlu_humanities": (1 / 4, 4705),
        "mmlu_social_sciences": (1 / 4, 3077),
        "mmlu_other": (1 / 4, 3242),
    },
    # The names of files round the sizes down.
    sizes=(
        Size(r"190M-(.+)", r"190M-\1", 190354176, 1903391232),
        Size(r"370M-(.+)", r"370M-\1", 371262464, 3443922944),
        Size(r"760M-(.+)", r"760M-\1", 758220288, 6373843968),
        Size(r"1B-(.+)", r"1.3B-\1", 1279395840, 10109071360),
        Size(r"3B-(.+)", r"3.2B-\1", 3169537280, 22970355200),
        Size(r"peteish7.*", "7B-4T", 6887575552, 49412071424),
        Size(r"peteish13.*", "13B-5T", 13202396160, 91335915520),
    ),
    reference_loss="eval/c4_en-validation/CrossEntropyLoss",
)

OLMO_CORE = Preset(
    keys=(
        Keys(
            loss="eval/downstream/{task} (BPB v2)",
            loss_kind=WITH_SPACE,
            accuracy=(
                "eval/downstream/{task} (length-normalized accuracy v2)",
                "eval/downstream/{task} (length-normalized accuracy)",
                "eval/downstream/{task} (accuracy v2)",
            ),
            log_soft="eval/downstream/{task} (log soft loss v2)",
        ),
        Keys(
            loss="eval/downstream/{task} (BPB)",
            loss_kind=WITHOUT_SPACE,
            accuracy=(
                "eval/downstream/{task} (length-normalized accuracy)",
                "eval/downstream/{task} (accuracy)",
            ),
            log_soft="eval/downstream/{task} (log soft loss)",
        ),
    ),
    reference_loss="eval/lm/c4_en-validation/CE loss",
    tokens=("tokens", "throughput/total tokens", "throughput/total_tokens"),
    params="num_params",
)

LEVANTER = Preset(
    keys=(
        Keys(
            loss="lm_eval/{task}/bpb",
            loss_kind=BARE_CHOICE,
            accuracy=("lm_eval/{task}/acc_norm", "lm_eval/{task}/acc"),
        ),
    ),
    accuracy=dict.fromkeys(ACC_TASKS, "lm_eval/{task}/acc"),
    reference_loss="eval/paloma/c4_en/loss",
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {"olmo": OLMO, "olmo-core": OLMO_CORE, "levanter": LEVANTER}
)


def as_preset(given: object) -> Preset:
    """A preset by its name, from a TOML file, or as it is."""
    if isinstance(given, Preset):
        return given
    if isinstance(given, str) and given in PRESETS:
        return PRESETS[given]
    if isinstance(given, Path) or (isinstance(given, str) and given.lower().endswith(".toml")):
        return read_preset(Path(given))
    raise ValueError(f"preset {given!r}: use {', '.join(PRESETS)}, a TOML file, or a Preset")


def read_preset(path: Path) -> Preset:
    """A preset from TOML: its fields, `[[keys]]` and `[[sizes]]`, whose `model` is else `run`'s."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no TOML that can be read ({error}); see the how-to") from None
    faults: list[str] = []
    sizes = content.get("sizes", [])
    sizes = sizes if isinstance(sizes, list) else [sizes]
    whole = {"model": r"\g<0>"}
    content["sizes"] = [whole | size if isinstance(size, dict) else size for size in sizes]
    for word, kind in (("keys", Keys), ("sizes", Size)):
        content[word] = build_objects(content.get(word, []), kind, word, faults)
    check_fields(content, Preset, "preset", faults)
    raise_faults(path.name, faults)
    try:
        return Preset(**content)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


DATADECIDE_PARAMS: Mapping[str, int] = MappingProxyType({
    "4M": 3744832, "6M": 6010464, "8M": 8538240, "10M": 9900432, "14M": 14380224, "16M": 16004560,
    "20M": 19101888, "60M": 57078144, "90M": 97946640, "150M": 151898880, "300M": 319980544,
    "530M": 530074944, "750M": 681297408, "1B": 1176832000,
})  # fmt: skip
"""Non-embedding parameters of DataDecide's sizes; its table has only the labels."""
