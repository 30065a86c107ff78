"""Download the weights of model cards: the only module in a2data that downloads a model."""

import os
import re
import shutil
from pathlib import Path, PurePosixPath

from a2data.store.filename import safe_path
from a2data.store.url import scrub
from model_zoo import weights
from model_zoo.roles import Card

CHUNK = 1 << 20  # bytes
PATIENCE_S = 30.0  # read timeout

# Formats of the same weights in order of preference. Only the first that a repository has is downloaded.
FORMATS = (
    (".safetensors",),
    (".bin", ".pt", ".pth", ".ckpt"),
    (".onnx", ".onnx_data"),
    (".msgpack", ".h5", ".ot", ".gguf", ".mlmodel", ".tflite"),
)
PAGES = re.compile(r"(^|/)\.|(^|/)README|\.(md|png|jpe?g|gif|webp|svg|mp4|pdf|ipynb)$", re.IGNORECASE)


def fetch(card: Card) -> tuple[Path, bool]:
    """Return (path of a card's weights, whether they were downloaded now). Existing weights are verified and noted in the lock.

    The weights appear atomically. Raises FileNotFoundError for weights that cannot be downloaded automatically, OSError with the
    server's answer, and ValueError for a file that differs from the card, the hub or the lock; such a file is not kept.
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
    """Raise ValueError if a downloaded file differs from the card or the lock."""
    known = weights.entry(home)
    for name, file in weights.files_of(got):
        now = weights.sha256(file)
        if card.sha256 and got.is_file() and now != card.sha256:
            raise ValueError(
                f"model {card.name!r}: {card.weights} has the sha256 {now}, but the card expects {card.sha256}; the file was not "
                "kept. Get the published file elsewhere, or use your own with NAME:PATH"
            )
        was = known.files.get(name) if known else None
        if known and (was is None or now != was.sha256):
            raise ValueError(
                f"model {card.name!r}: {card.weights} has changed since {known.fetched}: "
                f"{home if name == '.' else home / name} has the sha256 {now}, before {was.sha256 if was else 'missing'}; it was "
                f"not kept. To trust the new file, remove {str(home.relative_to(weights.folder()))!r} from "
                f"{weights.folder() / weights.LOCK}"
            )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# -- single file by URL ------------------------------------------------------------------------------------------------


def _from_url(card: Card, part: Path) -> None:
    """Stream a file to `part`; remove it if the download fails."""
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("fetching models needs httpx: pip install 'a2data[fetch]'", name="httpx") from error
    url = card.weights.removeprefix("url:")
    headers = {"Accept-Encoding": "identity"}  # weights do not compress; keeps Content-Length valid
    try:
        with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=PATIENCE_S) as response:
            response.raise_for_status()
            _save(response, part, card.name)
    except httpx.HTTPStatusError as error:
        raise OSError(
            f"model {card.name!r}: {url} returned {error.response.status_code} {error.response.reason_phrase}"
        ) from error
    except httpx.HTTPError as error:
        raise OSError(f"model {card.name!r}: download of {url} failed ({scrub(str(error))}); retry") from error


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
    """Download a repository, or one file of it, below the folder `part`. Returns (commit, path to keep).

    After an interruption the files stay in `part` and the next call resumes from there.
    """
    try:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "fetching from the Hugging Face hub needs huggingface_hub: pip install 'a2data[fetch]'", name=error.name
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
            f"model {card.name!r}: accept its licence ({card.weights_license}) at "
            f"https://huggingface.co/{owner}/{name}, run `hf auth login` or set HF_TOKEN, and fetch it again"
        ) from error
    except (HfHubHTTPError, EntryNotFoundError) as error:
        raise OSError(f"model {card.name!r}: {card.weights} at {_revision(card)}: {error}") from error
    shutil.rmtree(part / ".cache", ignore_errors=True)  # resume state of huggingface_hub
    return str(info.sha), part / file[0] if file else part


def _revision(card: Card) -> str:
    """Return the commit of the card; for a branch, the commit of the first fetch if there was one."""
    known = weights.entry(weights.home(card))
    return card.revision if weights.pinned(card.revision) or not known else known.revision or card.revision


def _check_published(card: Card, file: Path, sha256: str) -> None:
    """Raise ValueError and remove the file if its hash differs from the hub's."""
    if sha256 and (now := weights.sha256(file)) != sha256:
        file.unlink()
        raise ValueError(f"model {card.name!r}: {file.name} has the sha256 {now}, but the hub lists {sha256}")


def chosen(names: list[str]) -> list[str]:
    """Return the files to download: one format of the weights, and everything except documentation and pictures.

    names: paths in the repository. Weights in a folder are skipped if another folder or the root has a preferred format.
    """
    formats = [{n for n in names if PurePosixPath(n).suffix.lower() in suffixes} for suffixes in FORMATS]
    best = next((f for f in formats if f), set())
    left = set().union(*formats) - best
    return sorted(n for n in names if n not in left and not PAGES.search(n))
