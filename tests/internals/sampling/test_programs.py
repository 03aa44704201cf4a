import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from laddercast.sampling import programs

PROGRAM = """
import jax, jax.numpy as jnp
from laddercast.sampling import programs
programs.AT_LEAST_SECONDS = 0.0
place = programs.keep()
print("" if place is None else place)
print(jax.jit(lambda x: jnp.sin(x).sum() + len({marker!r}))(jnp.arange(3.0)))
"""


def run(folder: str | Path, marker: str = "one", **more: str) -> list[str]:
    environment = os.environ | {programs.SWITCH: str(folder)} | more
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(marker=marker)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*-cache")}


@pytest.mark.long
def test_a_second_process_compiles_nothing_anew(tmp_path):
    place, first = run(tmp_path)
    assert Path(place).parent == tmp_path
    kept = files_in(tmp_path)
    assert kept
    assert run(tmp_path)[1] == first
    assert files_in(tmp_path) == kept
    run(tmp_path, marker="another")
    assert files_in(tmp_path) > kept


def test_other_versions_and_flags_have_other_folders(monkeypatch, tmp_path):
    monkeypatch.setenv(programs.SWITCH, str(tmp_path))
    own = programs.folder()
    monkeypatch.setattr(programs, "version", lambda name: "99" if name == "jax" else "1")
    other = programs.folder()
    monkeypatch.setenv("XLA_FLAGS", "--xla_flag=1")
    assert len({own, other, programs.folder()}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("word", ["off", "OFF", "0"])
def test_it_can_be_switched_off(word):
    assert run(word)[0] == ""


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_harms_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    place, value = run(tmp_path / "file")
    assert place == ""
    assert float(value) > 0


@pytest.mark.slow
def test_the_users_own_choice_stands(tmp_path):
    own = tmp_path / "own"
    assert run(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(own))[0] == ""
    assert not (tmp_path / "ours").exists()


@pytest.mark.long
def test_nothing_is_kept_unless_asked(tmp_path):
    environment = os.environ | {programs.SWITCH: str(tmp_path)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    program = "import jax, laddercast.inference; print(jax.config.jax_compilation_cache_dir)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "None"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("fullest", "kept"), [(1.0, 1), (0.0, 0)])
def test_programs_are_dropped_only_where_memory_maps_run_out(monkeypatch, fullest, kept):
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not tell its memory maps")
    monkeypatch.setattr(programs, "FULLEST", fullest)
    double = jax.jit(lambda x: 2 * x)
    double(1.0)
    programs.make_room()
    assert double._cache_size() == kept
    assert double(2.0) == 4.0


LOWERED = """
import hashlib, sys, jax
from laddercast.model.priors import Priors
def total(priors, draw):
    names = "log_alpha_scale", "logit_gap", "q"
    return sum(getattr(priors, name).log_prob(draw) for name in names)
print(hashlib.sha256(jax.jit(total).lower(Priors(), 0.01).as_text().encode()).hexdigest())
"""


@pytest.mark.long
def test_a_program_is_the_same_whatever_the_order_of_sets():
    found = set()
    for seed in "012":
        done = subprocess.run(
            [sys.executable, "-c", LOWERED], env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.add(done.stdout)
    assert len(found) == 1


def test_batches_of_one_size_serve_any_number_of_rows():
    traced = []

    def double(row, factor):
        traced.append(row["x"].shape)
        return {"y": factor * row["x"]}

    for count in (1, programs.BATCH, 2 * programs.BATCH + 3):
        x = np.arange(2.0 * count).reshape(count, 2)
        np.testing.assert_array_equal(programs.in_batches(double, {"x": x}, 2.0)["y"], 2 * x)
    assert traced == [(2,)]
