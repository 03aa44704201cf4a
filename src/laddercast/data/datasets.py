"""Published ladders, fetched once from where their authors keep them and checked by SHA-256."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pooch

from laddercast.data import words as c
from laddercast.sampling.progress import with_progress

__all__ = ["fetch_gadre", "fetch_olmo_ladder"]

LOCAL = "LADDERCAST_DATA"
"""Environment variable: a folder with `olmo-ladder/*.csv` and `gadre.csv`; nothing is fetched."""

OLMO_URL = (
    "https://raw.githubusercontent.com/allenai/OLMo-ladder/"
    "67a3f440f787d020da35e3ca8eeae475fae754f5/src/scripts/paper/data/ladder-runs/"
)
GADRE_URL = (
    "https://raw.githubusercontent.com/mlfoundations/scaling/"
    "a003c4913793ac2ae7ef87b28ecb562955d026d5/exp_data/"
)

RETRIES = 2
"""Further tries for a file that was cut off or came back changed."""

# Of the exports with lines that end in CR LF: copies with LF alone are refused.
OLMO_SUMS = {
    "190M-0.5xC": "d4e9f80960149676352b61b739c4dca727bffee5e7a8f41919119365fcde0534",
    "190M-10xC": "192b115c3f02b6503043280f8303c59f5b10897cd631f1b8ec6aea944d22faa6",
    "190M-1xC-rerun": "50e635e970e4a29c838d644f942503f9ef6e0d78feb744055447413de42a3e2b",
    "190M-1xC": "8ac0066547d5edec4d05d2b861a26c7faf591eef6971e11acba2450a45e69c27",
    "190M-2xC": "db90c75f8d031d0754e7108f1a8d16f372603e0c04d2cb00cca08cf272ecf86a",
    "190M-5xC": "aefe54fa03bd158d6da178b1eb2ece88cb0681bb32403845b6e544ae9e4e5dcf",
    "1B-0.5xC": "7c44ecf10ddaeba4c5ceb26ac0db8b9454163c19903556238d3117685768126a",
    "1B-10xC": "ec7e7487c67a774d9b919ec35121966ded7ae2ce5ede135f1d32f509f451476f",
    "1B-1xC-rerun": "878e664acbb68df93b046a4242ccac12b321276e1f2fcbbbc6fa8779bd5eaa24",
    "1B-1xC": "7fe91f0552829238e591e55c03f66b743ac5931388d9710457a845d92c2d9102",
    "1B-2xC": "34ba12a08a52e10e89a71d88a5c13538c3df21e5e993c476cadb08eb4b2eb354",
    "1B-5xC": "d195153f05b846f6d4f8ca95247d1f79d9d00e898d856b244b17e20431539ddb",
    "370M-0.5xC": "04e12eec843bb7b8bf292ec8837edd8db63010469e457d145a1757d48a91bac9",
    "370M-10xC": "3f25b4ec4035caeb71b787d165857667779dc3b92739c6379b8f8ce7079fcb58",
    "370M-1xC-rerun": "e27c89356cc6c842585c0232bb3be20bd066c2d4f859d1a3c772c43e5b6887c7",
    "370M-1xC": "3597a61872596affbb61e83f36c7cc3fe43485c3ed30ba6d658064b57edcea07",
    "370M-2xC": "73c686e580ad0600ca12334bf22ab3dad3265583a948e3beaae5b79b9a20c137",
    "370M-5xC": "199905d322b0332b69f1d0a40de9be43e5eb3cf576fc1d3031578cdea09708fa",
    "3B-0.5xC": "35247d4ff9af52c11bdec95a31e069599f43564ba6094a3893b49d91aa258410",
    "3B-10xC": "1ff388361b6d8e4548aaaaecd8a0437a21e28b9af11c4696225e322c8526e488",
    "3B-1xC-rerun": "5c2b189aa82b964c4005fce327b42e9399110d297c83903d03d03d0892e11d7d",
    "3B-1xC": "bd5dbad1b2942c58439006f77dba46ff2f66ad8760f8d709f9ced4fcb387bedb",
    "3B-2xC": "b933055d54221855c893245331770c0e7314dea5203518640da88773d92d8e47",
    "3B-5xC": "4b02c35ea9b3623402ac3a401dbc66ed827dcecede04343ea65cc2bbf6bfd962",
    "760M-0.5xC": "a02cee96b21c78a6a9c71ba99ead71c454fc6561e50b778681ab1d7182df6cf6",
    "760M-10xC": "e256c9df6d3b7af66bbcf4dc7ca84b45a812bd205b70648ca5177c8b74f6ff40",
    "760M-1xC-rerun": "f5b2775ebc27c80f21e13e0bf35622007b8b30f09734ab0bb6f7e871bf33103b",
    "760M-1xC": "a830185275c91cc077379540ec91a71b4bea6f191ca99a8090c851be19e7956d",
    "760M-2xC": "8c1ad2bf7da390b9eed24af7b6eb12a6393cc077164d51b4e4740f7221f1193c",
    "760M-5xC": "9c08b58d2625f427253bbd2079bad3a90726a66486154dd4f82ef84560e275ec",
    "peteish13_eval_final": "8cbdd4c2818b05ff30476a9bd4ecae620da89193ca61183bc2d61e111a9d0059",
    "peteish7_eval_anneal": "0742d6c113aa0f9c789cf9e5745678fc6f30eb9b873a1f98068fc6f6522c85df",
}
"""SHA-256 of each run's file `<run>.csv`."""

GADRE_FILE = "gadre.csv"
GADRE_SUM = "a6d4080113dc13c187fb40b80ad96176c44557923b3d7de77b9f6fb0a563563a"
"""SHA-256 of the table made from the published files, which are checked through it."""

GADRE_RECIPES = ("c4_original", "rpj", "rw_original")
GADRE_MODELS = (
    *(
        f"{recipe}-{size}-{multiple}"
        for recipe, size, multiple in product(
            GADRE_RECIPES,
            ("d=1024_l=24_h=8", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=96_l=8_h=4"),
            (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
        )
        if (recipe, size, multiple) != ("c4_original", "d=1024_l=24_h=8", 32.0)  # not published
    ),
    *(f"{recipe}-open_lm_{size}-1.0" for recipe in GADRE_RECIPES for size in ("1b", "7b")),
    "c4_original-open_lm_1b-4.0",
    "rpj-open_lm_1b-32.0",
    "rw_original-open_lm_1b-16.0",
)

C4_VALIDATION = "c4_val/"
"""Part of the path of the validation set whose loss is `reference_loss`."""


def fetch_olmo_ladder(*, base_url: str = OLMO_URL) -> Path:
    """The folder of the OLMo ladder's runs, one CSV file a run as exported by its tracker.

    The 32 files (6.5 MB, Apache-2.0) accompany arXiv 2412.04403. They are fetched once into the
    user's cache; `base_url` names a mirror. Raises OSError where they cannot be fetched, ValueError
    where one is not the file that was published.

    >>> runs = lc.datasets.fetch_olmo_ladder()
    >>> ladder = lc.read_wandb(runs, preset="olmo", tasks=["arc_easy", "piqa"])
    """
    sums = {f"{run}.csv": known for run, known in OLMO_SUMS.items()}
    local = local_folder()
    if local is not None:
        return _checked_copy(local / "olmo-ladder", sums)
    folder = cache_folder() / "olmo-ladder"
    _fetch(sums, folder, base_url, "OLMo ladder")
    return folder


def fetch_gadre(*, base_url: str = GADRE_URL) -> Path:
    """The table of 104 models trained on 3 corpora: final checkpoints, 46 tasks.

    It has a `recipe`, so keep the rows of one for a ladder, and no `loss`, only `reference_loss`.
    Made once from 209 files (MIT) that accompany arXiv 2403.08540; `base_url` and errors as for
    `fetch_olmo_ladder`.

    >>> table = pd.read_csv(lc.datasets.fetch_gadre()).query("recipe == 'rpj'")
    """
    local = local_folder()
    if local is not None:
        return _checked_copy(local, {GADRE_FILE: GADRE_SUM}) / GADRE_FILE
    path = cache_folder() / GADRE_FILE
    if path.exists() and pooch.file_hash(str(path)) == GADRE_SUM:
        return path
    names = ["eval_metadata.csv"]
    names += [name for model in GADRE_MODELS for name in _gadre_names(model)]
    with _in_plain_words(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        passing = TemporaryDirectory(prefix=".gadre-", dir=path.parent)
    with passing as name:
        raw = Path(name)
        _fetch(dict.fromkeys(names), raw, base_url, "Gadre et al.")
        made = raw / GADRE_FILE
        try:
            gadre_table(raw).to_csv(made, index=False, lineterminator="\n")
            found = pooch.file_hash(str(made))
        except (ValueError, LookupError, TypeError) as error:
            found = f"none, for they cannot be read: {error}"
        if found != GADRE_SUM:
            raise ValueError(
                f"the files from {base_url} do not make the table that was checked (SHA-256 "
                f"{found}, not {GADRE_SUM}): one broke off, or was changed; try again, or set "
                f"{LOCAL} to a folder with {GADRE_FILE}"
            )
        made.replace(path)
    return path


def cache_folder() -> Path:
    """Where fetched files stay."""
    return Path(pooch.os_cache("laddercast"))


def local_folder() -> Path | None:
    """The folder that LADDERCAST_DATA names, if it names one."""
    given = os.environ.get(LOCAL, "").strip()
    return Path(given).expanduser() if given else None


def gadre_table(folder: Path) -> pd.DataFrame:
    """The published files of `folder` as one table, to six significant digits, by model and task.

    Tasks are those that all models have. Their `chance` and `items` are as published.
    """
    known = pd.read_csv(folder / "eval_metadata.csv").set_index("Eval Task")
    about, accuracies = {}, {}
    for model in GADRE_MODELS:
        run, scores = (json.loads((folder / name).read_text()) for name in _gadre_names(model))
        losses = [
            result["loss"]
            for result in run["results"]
            if any(C4_VALIDATION in path for path in result["val_data"])
        ]
        if len(losses) != 1:
            raise ValueError(f"{model} has {len(losses)} losses on C4")
        settings = run["hyperparameters"]
        about[model] = run["dataset_name"], settings["params_no_embed"], settings["tokens"], *losses
        accuracies[model] = scores["eval_metrics"]["icl"]
    tasks = sorted(set(known.index).intersection(*accuracies.values()))
    rows = [
        (model, recipe, params, tokens, task, _six(loss), _six(accuracies[model][task]))
        for model, (recipe, params, tokens, loss) in sorted(about.items())
        for task in tasks
    ]
    table = pd.DataFrame(
        rows,
        columns=[c.MODEL, c.RECIPE, c.PARAMS, c.TOKENS, c.TASK, c.REFERENCE_LOSS, c.ACCURACY],
    )
    table[c.CHANCE] = table[c.TASK].map(known["Random baseline"]) / 100
    table[c.ITEMS] = table[c.TASK].map(known["#datapoints"])
    return table


def _gadre_names(model: str) -> tuple[str, str]:
    return f"models/{model}.json", f"evals/evaluation_{model}_heavy.json"


def _six(value: float) -> float:
    return float(f"{value:.6g}")


def _fetch(sums: Mapping[str, str | None], folder: Path, base_url: str, what: str) -> None:
    """Fetch each file of `sums` that `folder` lacks or has with another sum.

    A file is written under its own name only when it is whole and checked.
    """
    address = f"{base_url.rstrip('/')}/"
    store = pooch.create(folder, address, registry=dict(sums), retry_if_failed=RETRIES)
    # Small files, read at once: a stream that fails would leave its connection open.
    load = pooch.HTTPDownloader(timeout=30, stream=False)
    shown = any(not (folder / name).exists() for name in sums)
    with _quiet_pooch():
        for name in with_progress(list(sums), shown, what, "file"):
            with _in_plain_words(store.get_url(name)):
                store.fetch(name, downloader=load)


@contextmanager
def _in_plain_words(url: str) -> Iterator[None]:
    from requests import ConnectionError as NoConnection
    from requests import HTTPError, RequestException, Timeout

    cure = f"or set {LOCAL} to a folder with a copy"
    try:
        yield
    except HTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        raise OSError(f"{url}: the server answers {status}; try again later, {cure}") from None
    except (NoConnection, Timeout):
        raise OSError(f"{url}: no connection; check the network, {cure}") from None
    except RequestException:
        raise OSError(f"{url}: the transfer broke off; try again, {cure}") from None
    except ValueError:
        raise ValueError(
            f"{url}: not the file that was published (its SHA-256 differs), so it was not kept; "
            f"try again, {cure}"
        ) from None
    except OSError as error:
        raise OSError(
            f"the cache folder {cache_folder()} cannot be written ({error.strerror or error}); "
            f"make it writable, {cure}"
        ) from None


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    # It logs each file; the progress bar shows as much.
    log = pooch.get_logger()
    level = log.level
    log.setLevel("WARNING")
    try:
        yield
    finally:
        log.setLevel(level)


def _checked_copy(folder: Path, sums: dict[str, str]) -> Path:
    absent = [name for name in sums if not (folder / name).is_file()]
    changed = [
        name
        for name, known in sums.items()
        if name not in absent and pooch.file_hash(str(folder / name)) != known
    ]
    for names, fault in ((absent, "is not there"), (changed, "is not as published")):
        if names:
            raise ValueError(
                f"{LOCAL}: {folder / names[0]} {fault}{_others(names[1:])}; copy it anew, or "
                f"unset {LOCAL} to fetch it"
            )
    return folder


def _others(names: Iterable[str]) -> str:
    others = list(names)
    return f", nor {'is' if len(others) == 1 else 'are'} {len(others)} more" if others else ""
