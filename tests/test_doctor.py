import pytest

from laddercast.cli import doctor
from laddercast.cli.commands import main


def test_a_sound_machine(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LADDERCAST_DATA", str(tmp_path / "none"))
    assert main(["doctor"]) == 0
    said = capsys.readouterr()
    for name in ("laddercast", "python", "numpyro", "jax", "arviz", "numpy", "pandas", "JAX devi"):
        assert f"\n{name}" in f"\n{said.out}"
    assert "no such folder" in said.out
    assert "(can be written)" in said.out
    assert not said.err


@pytest.mark.parametrize(
    ("installed", "fault"),
    [
        ({"jax": "0.99"}, 'jax is 0.99; run `pip install "jax<'),
        ({"arviz": None}, "arviz is not installed; run `pip install "),
    ],
)
def test_wrong_versions_stop_a_fit(installed, fault, capsys, monkeypatch):
    found = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: installed.get(name, found(name)))
    assert main(["doctor"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {fault}")
    assert said.err.count("\n") == 1
    assert "nothing here stops a fit" not in said.out


def test_jax_that_does_not_start_stops_a_fit(capsys, monkeypatch):
    import jax

    def broken(*_: object) -> None:
        raise RuntimeError("Unable to initialize\nbackend")

    monkeypatch.setattr(jax, "devices", broken)
    assert main(["doctor"]) == 1
    assert "(Unable to initialize backend); run `pip install" in capsys.readouterr().err
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert main(["doctor"]) == 1
    assert "unset JAX_PLATFORMS (it is cuda), or add cpu to it" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_told_but_stops_nothing(capsys, monkeypatch, tmp_path):
    taken = tmp_path / "file"
    taken.write_text("")
    monkeypatch.setattr(doctor, "cache_folder", lambda: taken / "laddercast")
    assert main(["doctor"]) == 0
    assert "cannot be written, which stops fetching" in capsys.readouterr().out
