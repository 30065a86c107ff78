"""What is wanted in the corpus -> Source rows: folders, globs, files, URLs and lists of them, known by their bytes."""

import hashlib
import io
import os
import stat as modes
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from a2data.records import Source
from a2data.store.source_files import SourceFiles
from a2data.store.url import is_url, is_web, public_name, scrub
from pipelines.sources import lists
from pipelines.sources.download import Answer, Downloader, DownloadError, Watch, check_listed, copy
from pipelines.sources.licences import Statement, settle
from pipelines.sources.lists import Entry

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
CHUNK = 1 << 20  # bytes read at a time
MAX_LIST_BYTES = 1 << 30
UNREAD = "unread-"
AGAIN = "`a2data run` with the same input tries again"


@dataclass(frozen=True)
class Access:
    """How inputs may be read. files: where copies of downloads are kept, None where nothing may be downloaded."""

    downloader: Downloader = field(default_factory=Downloader)
    files: SourceFiles | None = None
    list_encoding: str = ""  # of .csv and .jsonl lists; "" for UTF-8, or what a byte order mark says
    replace_licenses: bool = False  # licences that are stated now take the place of those of known rows


class Survey(NamedTuple):
    """What inputs came to."""

    new: list[Source]  # sorted by video_id
    amended: list[Source]  # known rows whose licence is another by what the inputs state


@dataclass
class Listed:
    """One location, and all that the inputs say of it."""

    entry: Entry  # the first that names it, with what that one leaves blank from the others
    statements: list[Statement]
    trusted: bool


class Found(NamedTuple):
    row: Source
    statements: list[Statement]


def sources(inputs: Iterable[str], known: Iterable[Source] = (), access: Access | None = None) -> list[Source]:
    """The new rows of `survey`."""
    return survey(inputs, known, access).new


def survey(
    inputs: Iterable[str], known: Iterable[Source] = (), access: Access | None = None, threads: int = 8
) -> Survey:
    """The rows of everything in `inputs` that is not in `known` yet, sorted by video_id, whatever order it was found in.

    inputs: folders (with all below), globs, videos, URLs that fsspec opens (globs, too), and lists of videos: .csv, .jsonl
    or .parquet with a column "path" or "url" and, if they like, "license", "source" and "label". Local paths become absolute.
    known: rows of earlier runs. A file with the path, size and time of one of them is not read again; one whose bytes have
    changed gets a new row. What cannot be read, or may not be, gets a row that says so.
    Raises ValueError where an input gives no video or a list does not parse, FileNotFoundError where it does not exist.
    """
    access, known = access or Access(), list(known)
    listed = merged(entry for given in inputs for entry in expand(given, access))
    by_path: dict[str, list[Source]] = {}
    for row in known:
        by_path.setdefault(public_name(row.path), []).append(row)
    pool = ThreadPoolExecutor(threads)
    try:
        found = list(
            pool.map(lambda one: look_up(one, by_path.get(public_name(one.entry.location), []), access), listed)
        )
    except BaseException:  # Ctrl-C too: downloads that are under way end at once
        access.downloader.stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    new, amended = settle(number_unread(found), known, access.replace_licenses)
    ids = {row.video_id for row in known}  # again: touched, but with the same bytes
    marked = mark_duplicates(new, known)
    return Survey(sorted((row for row in marked if row.video_id not in ids), key=lambda row: row.video_id), amended)


# -- inputs -> entries -------------------------------------------------------------------------------------------------


def expand(given: str, access: Access) -> list[Entry]:
    """The videos that one input stands for, sorted by path."""
    here = not is_url(given)
    if here and os.path.isdir(given):
        found = sorted(walk(os.path.abspath(given)), key=lambda entry: entry.location)
    elif lists.is_list(given):
        found = from_list(given, access)
    elif here and os.path.exists(given):  # before globs: a file name may have brackets
        found = [Entry(os.path.abspath(given))]
    elif any(c in (public_name(given) if is_web(given) else given) for c in "*?["):
        found = [Entry(path) for path in glob(given) if is_video(path)]
    elif here:
        raise FileNotFoundError(f"{given}: there is no such file or folder")
    else:
        found = [Entry(given)]
    if not found:
        raise ValueError(f"{public_name(given)}: no video in it; looked for {' '.join(VIDEO_SUFFIXES)}")
    return found


def is_video(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES


def walk(folder: str) -> Iterator[Entry]:
    """The videos below a folder, and what cannot be listed. Links to folders are not entered, so that no loop can form."""
    errors: list[OSError] = []
    linked = []
    for top, folders, files in os.walk(folder, onerror=errors.append):
        yield from (Entry(os.path.join(top, name)) for name in files if is_video(name))
        linked += [path for name in folders if os.path.islink(path := os.path.join(top, name))]
    if linked:
        print(
            f"not entered: {len(linked)} links to folders, such as {linked[0]!a}: name what they lead to",
            file=sys.stderr,
        )
    for error in errors:
        yield Entry(os.fsdecode(error.filename), problem=f"the folder cannot be listed: {error.strerror}; {AGAIN}")


def glob(pattern: str) -> list[str]:
    """The paths that match, sorted; URLs keep their protocol."""
    if not is_url(pattern):
        return sorted(LocalFileSystem().glob(os.path.abspath(pattern)))
    filesystem, local = fsspec.core.url_to_fs(pattern)
    return [filesystem.unstrip_protocol(path) for path in sorted(filesystem.glob(local))]


def from_list(path: str, access: Access) -> list[Entry]:
    """The rows of a list that the user named; relative paths are seen from its folder."""
    if path.startswith("file://"):
        path = LocalFileSystem._strip_protocol(path)
    if not is_url(path):
        path = os.path.abspath(path)
    rows = lists.entries(list_bytes(path, access), path, access.list_encoding)
    out = []
    for row in rows:
        location = lists.located(row.location, path)
        problem = ""
        if is_url(location):
            try:
                check_listed(location, access.downloader.allow_local)
            except DownloadError as error:
                problem = str(error)
        elif is_web(path):
            problem = "a list at a web address may not name local files"
        else:
            location = os.path.abspath(location)
        out.append(replace(row, location=location, problem=problem))
    return out


def list_bytes(path: str, access: Access) -> bytes:
    """Raises OSError or ValueError for a list that cannot be read."""
    try:
        if is_web(path):
            out, limits = io.BytesIO(), replace(access.downloader.limits, max_bytes=MAX_LIST_BYTES)
            replace(access.downloader, limits=limits).get(path, out, trusted=True)
            return out.getvalue()
        with open_regular(path) if not is_url(path) else fsspec.open(path, "rb") as file:
            return file.read()
    except DownloadError as error:
        raise DownloadError(f"{public_name(path)}: {error}") from None


def merged(entries: Iterable[Entry]) -> list[Listed]:
    """Each location once, in the order in which they come."""
    out: dict[str, Listed] = {}
    for entry in entries:
        one = out.setdefault(entry.location, Listed(entry, [], entry.trusted))
        blanks = {name: getattr(entry, name) for name in ("license", "source", "label") if not getattr(one.entry, name)}
        one.entry = replace(one.entry, **blanks, problem=one.entry.problem and entry.problem)
        one.trusted |= entry.trusted
        if entry.license:
            one.statements.append(Statement(entry.license, entry.stated_in))
    return list(out.values())


# -- entries -> rows ---------------------------------------------------------------------------------------------------


def look_up(listed: Listed, known: Sequence[Source], access: Access) -> Found:
    """The row of a location, with the id that its bytes give it: one of `known`, its rows, where it is still the same."""
    entry = listed.entry
    row = blank(entry)
    if row.unreadable:
        return Found(identify(row), listed.statements)
    if is_web(entry.location) or row.path != entry.location:
        return Found(downloaded(row, listed, known, access), listed.statements)
    row = stat(row)
    for old in known:
        same = (old.bytes, old.modified_ns) == (row.bytes, row.modified_ns)
        if same and not old.video_id.startswith(UNREAD):
            return Found(old, listed.statements)
    return Found(identify(row), listed.statements)


def blank(entry: Entry) -> Source:
    """A row of which only the path is known, and what the inputs say."""
    path, problem = public_name(entry.location), entry.problem
    try:
        path.encode()
    except UnicodeEncodeError:
        path = os.fsencode(path).decode(errors="backslashreplace")
        problem = "its name is not UTF-8: rename it"
    return Source("", path, entry.license, entry.source, entry.label, bytes=0, duplicate_of="", unreadable=problem)


def stat(row: Source) -> Source:
    """The row with the size and, of a local file, the time of last change; as it is where that cannot be had.

    What is not a regular file (a FIFO, a device) is not touched beyond that: to open it may wait for ever.
    """
    try:
        if not is_url(row.path):
            facts = os.stat(row.path)
            if not modes.S_ISREG(facts.st_mode):
                return replace(row, unreadable=f"is {_kind(facts.st_mode)}, not a file")
            return replace(row, bytes=facts.st_size, modified_ns=facts.st_mtime_ns)
        filesystem, path = fsspec.core.url_to_fs(row.path)
        return replace(row, bytes=filesystem.size(path) or 0)
    except ImportError:
        raise
    except Exception:  # what a file system raises for a server that is away is not always an OSError
        return row  # `identify` will meet the same error, and names the row by it


def _kind(mode: int) -> str:
    kinds = {modes.S_IFIFO: "a FIFO", modes.S_IFSOCK: "a socket", modes.S_IFDIR: "a folder"}
    return kinds.get(modes.S_IFMT(mode), "a device")


def identify(row: Source) -> Source:
    """The row with the id that its bytes give it; "unread-" and a hash of its path where they cannot be read."""
    total, problem = hashlib.sha256(), row.unreadable
    try:
        if not problem:
            with open_regular(row.path) if not is_url(row.path) else fsspec.open(row.path, "rb") as file:
                while chunk := file.read(CHUNK):
                    total.update(chunk)
    except ImportError:
        raise
    except Exception as error:
        problem = f"{reason(error)}; {AGAIN}"
    if problem:  # stays in the manifest: ingest fails on it, by name
        return replace(row, video_id=unread_id(row.path), unreadable=problem)
    return replace(row, video_id=total.hexdigest()[:16])


def unread_id(path: str) -> str:
    return f"{UNREAD}{hashlib.sha256(path.encode()).hexdigest()[:16]}"


def reason(error: Exception) -> str:
    """An error as a sentence without secrets."""
    if isinstance(error, DownloadError):
        return str(error)
    text = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
    return scrub(f"it cannot be read: {text}")


def open_regular(path: str) -> BinaryIO:
    """A regular file to read. Raises ValueError for a FIFO and the like, which is not waited for."""
    mode = os.stat(path).st_mode
    if modes.S_ISREG(mode):
        # should a FIFO have taken its place since, then neither opening nor reading waits
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
        mode = os.fstat(file.fileno()).st_mode
        if modes.S_ISREG(mode):
            return file
        file.close()
    raise ValueError(f"{path} is {_kind(mode)}, not a file")


class _Sink:
    """Takes a download: to a file, and into a hash."""

    def __init__(self, file: BinaryIO):
        self.file, self.sha, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.sha.update(data)
        self.size += len(data)


def downloaded(row: Source, listed: Listed, known: Sequence[Source], access: Access) -> Source:
    """The row of a URL whose copy is kept in the work folder: its URL may have a secret, or be another file tomorrow.

    Not downloaded again: one of which the server states the size and time of one of `known` that has its copy. A failed download
    of what has its copy costs nothing.
    """
    files = access.files
    if files is None:
        raise ValueError(f"{row.path}: URLs are downloaded to a work folder, and none is given")
    kept = [old for old in known if not old.video_id.startswith(UNREAD) and files.has(_base(old.video_id))]
    same: list[Source] = []

    def wanted(answer: Answer) -> bool:
        same[:] = [old for old in kept if answer.modified_ns and answer == (old.bytes, old.modified_ns)]
        return not same

    scratch = files.scratch()
    try:
        with open(scratch, "wb") as file:
            sink = _Sink(file)
            answer = _fetch(listed, sink, access, wanted)
        if answer is None:
            return same[0]
        video_id = sink.sha.hexdigest()[:16]
        if not files.has(video_id):
            files.keep(scratch, video_id)
        return replace(row, video_id=video_id, bytes=sink.size, modified_ns=answer.modified_ns)
    except ImportError:
        raise
    except Exception as error:
        if len(kept) == 1:
            print(f"{row.path}: {reason(error)}: the copy from before is used", file=sys.stderr)
            return kept[0]
        return replace(row, video_id=unread_id(row.path), unreadable=f"the download failed: {reason(error)}; {AGAIN}")
    finally:
        if os.path.exists(scratch):
            os.remove(scratch)


def _fetch(listed: Listed, sink: _Sink, access: Access, wanted: Any) -> Answer | None:
    location, downloader = listed.entry.location, access.downloader
    if is_web(location):
        return downloader.get(location, sink, listed.trusted, wanted)
    watch = Watch(downloader.limits, downloader.stop)

    def chunks() -> Iterator[bytes]:
        with fsspec.open(location, "rb") as file:
            while chunk := file.read(CHUNK):
                watch.count(len(chunk))
                yield chunk

    copy(chunks(), sink, watch)
    return Answer(None, 0)


def _base(video_id: str) -> str:
    return video_id.partition("-dup-")[0]


def number_unread(found: Sequence[Found]) -> list[Found]:
    """URLs that differ in their queries have one name: each that could not be read gets an id of its own all the same."""
    seen: dict[str, int] = {}
    out = []
    for one in found:
        row = one.row
        if row.video_id.startswith(UNREAD):
            number = seen[row.path] = seen.get(row.path, 0) + 1
            row = replace(row, video_id=unread_id(f"{row.path}#{number}" if number > 1 else row.path))
        out.append(Found(row, one.statements))
    return out


def mark_duplicates(new: Iterable[Source], known: Iterable[Source] = ()) -> list[Source]:
    """Rows of which each id is used once: of files with the same bytes the first by path keeps it, unless a known one has it."""
    first = {row.video_id: public_name(row.path) for row in known if not row.duplicate_of}
    marked = []
    for row in sorted(new, key=lambda row: row.path):
        original = first.get(row.video_id)
        first.setdefault(row.video_id, row.path)
        if original == row.path:  # known, or the same bytes under two queries of one address
            continue
        if original is not None:
            copied = hashlib.sha256(row.path.encode()).hexdigest()[:8]
            row = replace(row, video_id=f"{row.video_id}-dup-{copied}", duplicate_of=original)
        marked.append(row)
    return marked
