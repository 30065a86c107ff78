"""Brings the weights of model cards to this machine: the only place in a2data that downloads a model."""

import os
import re
import shutil
from pathlib import Path, PurePosixPath

from a2data.store.filename import safe_path
from a2data.store.url import scrub
from model_zoo import weights
from model_zoo.roles import Card

CHUNK = 1 << 20  # bytes
PATIENCE_S = 30.0  # without a single byte

# The same weights in several formats: the first format that a repository has is taken, the others are left there.
FORMATS = (
    (".safetensors",),
    (".bin", ".pt", ".pth", ".ckpt"),
    (".onnx", ".onnx_data"),
    (".msgpack", ".h5", ".ot", ".gguf", ".mlmodel", ".tflite"),
)
PAGES = re.compile(r"(^|/)\.|(^|/)README|\.(md|png|jpe?g|gif|webp|svg|mp4|pdf|ipynb)$", re.IGNORECASE)


def fetch(card: Card) -> tuple[Path, bool]:
    """(where a card's weights are, whether they were brought now). What lies there already is checked and written into the lock.

    Weights appear whole or not at all. Raises FileNotFoundError for weights that nobody may fetch, OSError with what the server
    said, ValueError for a file that is not the one that the card, the hub or the lock says; it is not kept then.
    """
    path = weights.located(card)
    if path is not None:
        if wrong := weights.differences(card, path):
            raise ValueError(f"model {card.name!r}: {wrong[0]}")
        if path.is_relative_to(weights.folder()):
            known = weights.entry(path)
            weights.note(card, path, known.revision if known else "")
        return path, False
    if not card.weights.startswith(("hf:", "url:")):
        raise FileNotFoundError(f"model {card.name!r}: {weights.how_to_get(card)}")
    home = weights.home(card)
    part = home.with_name(f".{home.name}.part")
    home.parent.mkdir(parents=True, exist_ok=True)
    if card.weights.startswith("url:"):
        commit, got = "", part
        _from_url(card, part)
    else:
        commit, got = _from_hub(card, part)
    try:
        _check(card, got, home)
        got.replace(home)
    finally:
        _remove(part)
    weights.note(card, home, commit)
    return home, True


def _check(card: Card, got: Path, home: Path) -> None:
    """Raises ValueError where what came is not what the card or the lock says."""
    known = weights.entry(home)
    for name, file in weights.files_of(got):
        now = weights.sha256(file)
        if card.sha256 and got.is_file() and now != card.sha256:
            raise ValueError(
                f"model {card.name!r}: {card.weights} has the sha256 {now}, and the card says {card.sha256}: it was not kept. "
                "Is this the file that was published? Get it elsewhere, or give your own with NAME:PATH"
            )
        was = known.files.get(name) if known else None
        if known and (was is None or now != was.sha256):
            raise ValueError(
                f"model {card.name!r}: {card.weights} is no longer what it was on {known.fetched}: "
                f"{home if name == '.' else home / name} has the sha256 {now}, was {was.sha256 if was else 'not there'}: it was "
                f"not kept. To trust the new one, remove {str(home.relative_to(weights.folder()))!r} from "
                f"{weights.folder() / weights.LOCK}"
            )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# -- one file by its address -------------------------------------------------------------------------------------------


def _from_url(card: Card, part: Path) -> None:
    """Stream a file to `part`. Leaves nothing behind where that does not end well."""
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("to fetch models needs httpx: pip install 'a2data[fetch]'", name="httpx") from error
    url = card.weights.removeprefix("url:")
    headers = {"Accept-Encoding": "identity"}  # weights do not compress, and the size is known then
    try:
        with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=PATIENCE_S) as response:
            response.raise_for_status()
            _save(response, part, card.name)
    except httpx.HTTPStatusError as error:
        raise OSError(
            f"model {card.name!r}: {url} answers {error.response.status_code} {error.response.reason_phrase}"
        ) from error
    except httpx.HTTPError as error:
        raise OSError(f"model {card.name!r}: {url} did not come whole ({scrub(str(error))}): fetch it again") from error


def _save(response, part: Path, name: str) -> None:  # type: ignore[no-untyped-def] # httpx is imported above only
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    size = int(response.headers.get("Content-Length", 0)) or None
    try:
        with Progress("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bar:
            task = bar.add_task(name, total=size)
            with part.open("wb") as out:
                for chunk in response.iter_bytes(CHUNK):
                    out.write(chunk)
                    bar.advance(task, len(chunk))
    except BaseException:  # Ctrl-C too
        part.unlink(missing_ok=True)
        raise


# -- the Hugging Face hub ----------------------------------------------------------------------------------------------


def _from_hub(card: Card, part: Path) -> tuple[str, Path]:
    """(the commit, what to take) of a repository, or of one file of it, downloaded below the folder `part`.

    What came before an interruption stays in `part`, and the next call goes on from there.
    """
    try:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "to fetch from the Hugging Face hub needs huggingface_hub: pip install 'a2data[fetch]'", name=error.name
        ) from error
    owner, name, *file = card.weights.removeprefix("hf:").split("/", 2)
    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        info = HfApi(endpoint=endpoint).model_info(f"{owner}/{name}", revision=_revision(card), files_metadata=True)
        published = {s.rfilename: s.lfs.sha256 if s.lfs else "" for s in info.siblings or []}
        for wanted in [safe_path(name, card.weights) for name in file or chosen(list(published))]:
            got = hf_hub_download(
                f"{owner}/{name}", wanted, revision=info.sha, local_dir=part, endpoint=endpoint, library_name="a2data"
            )
            _check_published(card, Path(got), published.get(wanted, ""))
    except GatedRepoError as error:
        raise PermissionError(
            f"model {card.name!r}: its licence ({card.weights_license}) is yours to accept at "
            f"https://huggingface.co/{owner}/{name}; then `hf auth login`, or set HF_TOKEN, and fetch it again"
        ) from error
    except (HfHubHTTPError, EntryNotFoundError) as error:
        raise OSError(f"model {card.name!r}: {card.weights} at {_revision(card)}: {error}") from error
    shutil.rmtree(part / ".cache", ignore_errors=True)  # the hub's notes for going on
    return str(info.sha), part / file[0] if file else part


def _revision(card: Card) -> str:
    """The commit that the card names; for a branch the commit that it stood for at the first fetch, where there was one."""
    known = weights.entry(weights.home(card))
    return card.revision if weights.pinned(card.revision) or not known else known.revision or card.revision


def _check_published(card: Card, file: Path, sha256: str) -> None:
    """Raises ValueError, and removes the file, where it is not what the hub says it is."""
    if sha256 and (now := weights.sha256(file)) != sha256:
        file.unlink()
        raise ValueError(f"model {card.name!r}: {file.name} came with the sha256 {now}, and the hub says {sha256}")


def chosen(names: list[str]) -> list[str]:
    """The files of a repository that a model is built from: one format of its weights, and all that is neither page nor picture.

    names: paths in the repository. A folder's weights are left out where another folder or the root has a better format.
    """
    formats = [{n for n in names if PurePosixPath(n).suffix.lower() in suffixes} for suffixes in FORMATS]
    best = next((f for f in formats if f), set())
    left = set().union(*formats) - best
    return sorted(n for n in names if n not in left and not PAGES.search(n))
