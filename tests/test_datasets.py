import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pooch
import pytest

import laddercast as lc
from laddercast import datasets

RUNS = {"190M-1xC.csv": b"_step,loss\r\n1,2.0\r\n", "190M-2xC.csv": b"_step,loss\r\n1,1.9\r\n"}
MODELS = ("rpj-small-1.0", "rw_original-small-2.0")


class Server:
    """A loopback web server of `files`, by path; `cut` sends half of each, `status` an error."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut, self.status = False, 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                body = server.files.get(self.path.removeprefix("/"))
                status = 404 if body is None else server.status
                body = b"" if body is None or status != 200 else body
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if server.cut else body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.http.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.http.shutdown()
    running.http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache, and as published: two runs, two models."""
    monkeypatch.setattr(datasets, "RETRIES", 0)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.delenv("LADDERCAST_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    sums = {name.removesuffix(".csv"): sha256(body) for name, body in RUNS.items()}
    monkeypatch.setattr(datasets, "OLMO_SUMS", sums)
    monkeypatch.setattr(datasets, "GADRE_MODELS", MODELS)
    monkeypatch.setattr(datasets, "GADRE_SUM", sha256(GADRE))
    return tmp_path / "cache" / "laddercast"


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def published(table: pd.DataFrame) -> dict[str, bytes]:
    """The files that make this table, with what they hold beside it."""
    tasks = table.drop_duplicates("task").set_index("task")
    about = pd.DataFrame(
        {"#datapoints": tasks["items"], "Random baseline": 100 * tasks["chance"]}
    ).rename_axis("Eval Task")
    about.loc["of one model only"] = [10, 0]
    files = {"eval_metadata.csv": about.astype(int).to_csv().encode()}
    for number, (model, rows) in enumerate(table.groupby("model")):
        first = rows.iloc[0]
        run = {
            "dataset_name": first["recipe"],
            "hyperparameters": {
                "params": 9 * int(first["params"]),
                "params_no_embed": int(first["params"]),
                "tokens": int(first["tokens"]),
            },
            "results": [
                {"loss": 9.0, "val_data": ["training/eval_data/val_tok_mult/paloma_c4_en/1.tar"]},
                {
                    "loss": first["reference_loss"] * (1 + 1e-9),
                    "val_data": ["training/eval_data/c4_val/shard-{0..10}.tar"],
                },
            ],
        }
        scores = dict(zip(rows["task"], rows["accuracy"] * (1 + 1e-9), strict=True))
        scores |= {"not described": 0.5} | ({"of one model only": 0.5} if number == 0 else {})
        files[f"models/{model}.json"] = json.dumps(run).encode()
        evals = {"eval_metrics": {"icl": scores}}
        files[f"evals/evaluation_{model}_heavy.json"] = json.dumps(evals).encode()
    return files


GADRE = (
    b"model,recipe,params,tokens,task,reference_loss,accuracy,chance,items\n"
    b"rpj-small-1.0,rpj,5727840,211386240,copa,5.12345,0.47,0.5,100\n"
    b"rpj-small-1.0,rpj,5727840,211386240,squad,5.12345,9.46074e-05,0.0,10570\n"
    b"rw_original-small-2.0,rw_original,5727840,422772480,copa,4.98344,0.51,0.5,100\n"
    b"rw_original-small-2.0,rw_original,5727840,422772480,squad,4.98344,0.0,0.0,10570\n"
)


@pytest.fixture
def gadre_files(tmp_path: Path) -> dict[str, bytes]:
    path = tmp_path / "made.csv"
    path.write_bytes(GADRE)
    return published(pd.read_csv(path))


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_runs_are_fetched_once(server, cache):
    server.files = RUNS
    folder = lc.datasets.fetch_olmo_ladder(base_url=server.url)
    assert folder == cache / "olmo-ladder"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == RUNS
    server.asked.clear()
    assert lc.datasets.fetch_olmo_ladder(base_url=server.url) == folder
    assert not server.asked
    (folder / "190M-1xC.csv").write_bytes(b"damaged")
    lc.datasets.fetch_olmo_ladder(base_url=f"{server.url}/")
    assert server.asked == ["/190M-1xC.csv"]
    assert (folder / "190M-1xC.csv").read_bytes() == RUNS["190M-1xC.csv"]


def test_files_that_broke_off_are_asked_for_again(server, cache, monkeypatch):
    monkeypatch.setattr(datasets, "RETRIES", 1)

    def mend(_: float) -> None:
        server.cut = False

    monkeypatch.setattr("time.sleep", mend)
    server.files, server.cut = RUNS, True
    datasets.fetch_olmo_ladder(base_url=server.url)
    assert left(cache) == [f"olmo-ladder/{name}" for name in RUNS]


FETCHES = [datasets.fetch_olmo_ladder, datasets.fetch_gadre]


@pytest.mark.parametrize("fetch", FETCHES)
def test_what_cannot_be_fetched_says_why_and_leaves_nothing(fetch, server, cache, gadre_files):
    cure = "or set LADDERCAST_DATA to a folder with a copy"
    server.files, server.cut = RUNS | gadre_files, True
    with pytest.raises(OSError, match=f"the transfer broke off; try again, {cure}"):
        fetch(base_url=server.url)
    assert not left(cache)

    server.cut, server.status = False, 503
    with pytest.raises(OSError, match=f"server answers 503; try again later, {cure}"):
        fetch(base_url=server.url)
    server.files = {}
    with pytest.raises(OSError, match="server answers 404"):
        fetch(base_url=server.url)
    assert not left(cache)


@pytest.mark.parametrize("fetch", FETCHES)
def test_no_network(fetch, server, cache):
    server.http.server_close()
    with pytest.raises(OSError, match="no connection; check the network") as caught:
        fetch(base_url=server.url)
    assert caught.value.__suppress_context__
    assert "\n" not in str(caught.value)
    assert not left(cache)


def test_changed_runs_are_refused(server, cache):
    server.files = RUNS | {"190M-2xC.csv": RUNS["190M-2xC.csv"].replace(b"\r\n", b"\n")}
    with pytest.raises(ValueError, match=r"190M-2xC.csv: not the file that was published"):
        datasets.fetch_olmo_ladder(base_url=server.url)
    # The one that is whole stays.
    assert left(cache) == ["olmo-ladder/190M-1xC.csv"]


def test_a_cache_that_cannot_be_written(server, cache):
    cache.parent.mkdir()
    cache.write_bytes(b"a file")
    server.files = RUNS
    for fetch in FETCHES:
        with pytest.raises(
            OSError, match=r"cache folder .* cannot be written .*; make it writable"
        ):
            fetch(base_url=server.url)


def test_the_table_is_made_from_the_published_files_once(server, cache, gadre_files):
    server.files = gadre_files
    path = lc.datasets.fetch_gadre(base_url=server.url)
    assert path.read_bytes() == GADRE
    assert left(cache) == ["gadre.csv"]
    server.asked.clear()
    assert lc.datasets.fetch_gadre(base_url=server.url) == path
    assert not server.asked


@pytest.mark.parametrize("body", [b"{", b"{}", b'"text"', None])
def test_files_that_make_another_table_are_refused(body, server, cache, gadre_files):
    name = f"evals/evaluation_{MODELS[0]}_heavy.json"
    body = gadre_files[name].replace(b"0.47", b"0.48") if body is None else body
    server.files = gadre_files | {name: body}
    with pytest.raises(ValueError, match="do not make the table that was checked"):
        datasets.fetch_gadre(base_url=server.url)
    assert not left(cache)


def test_a_local_copy_stands_in(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("LADDERCAST_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"190M-1xC.csv is not there, nor is 1 more; copy it anew"):
        datasets.fetch_olmo_ladder()
    with pytest.raises(ValueError, match=r"gadre.csv is not there; copy it anew, or unset"):
        datasets.fetch_gadre()
    (tmp_path / "olmo-ladder").mkdir()
    for name, body in RUNS.items():
        (tmp_path / "olmo-ladder" / name).write_bytes(body)
    (tmp_path / "gadre.csv").write_bytes(GADRE)
    assert datasets.fetch_olmo_ladder() == tmp_path / "olmo-ladder"
    assert datasets.fetch_gadre() == tmp_path / "gadre.csv"
    (tmp_path / "gadre.csv").write_bytes(GADRE + b"\n")
    with pytest.raises(ValueError, match=r"gadre.csv is not as published"):
        datasets.fetch_gadre()
    assert not cache.exists()


def test_the_measured_ladders_are_those_named_here(data_dir, tmp_path, monkeypatch):
    """The sums are those of the copies; the table's inverse makes the table again."""
    monkeypatch.undo()
    monkeypatch.setenv("LADDERCAST_DATA", str(data_dir))
    assert len(list(datasets.fetch_olmo_ladder().iterdir())) == len(datasets.OLMO_SUMS) == 32
    table = pd.read_csv(datasets.fetch_gadre())
    assert sorted(datasets.GADRE_MODELS) == sorted(table["model"].unique())
    for name, body in published(table).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(body)
    made = datasets.gadre_table(tmp_path).to_csv(index=False, lineterminator="\n")
    assert sha256(made.encode()) == datasets.GADRE_SUM
