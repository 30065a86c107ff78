"""Resolution of user inputs (folders, globs, files, URLs and lists of them) to Source rows, identified by their bytes."""

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
AGAIN = "re-run `a2data run` with the same input to retry"


@dataclass(frozen=True)
class Access:
    """Access to inputs. files: storage for copies of downloads; None if downloads are not allowed."""

    downloader: Downloader = field(default_factory=Downloader)
    files: SourceFiles | None = None
    list_encoding: str = ""  # of .csv and .jsonl lists; "" for that of the byte order mark, or UTF-8
    replace_licenses: bool = False  # replace the licences of known rows by those stated now


class Survey(NamedTuple):
    """Rows found in inputs."""

    new: list[Source]  # sorted by video_id
    amended: list[Source]  # known rows whose licence changes according to the inputs


@dataclass
class Listed:
    """One location with everything that the inputs state about it."""

    entry: Entry  # its first entry, with blank fields filled from the others
    statements: list[Statement]
    trusted: bool


class Found(NamedTuple):
    row: Source
    statements: list[Statement]


def sources(inputs: Iterable[str], known: Iterable[Source] = (), access: Access | None = None) -> list[Source]:
    """Return the new rows of `survey`."""
    return survey(inputs, known, access).new


def survey(
    inputs: Iterable[str], known: Iterable[Source] = (), access: Access | None = None, threads: int = 8
) -> Survey:
    """Return the rows of all videos in `inputs` that are not in `known`, sorted by video_id.

    inputs: folders (recursive), globs, videos, URLs that fsspec opens (also with globs), and lists of videos: .csv, .jsonl or
    .parquet with a column "path" or "url" and optionally "license", "source" and "label". Local paths become absolute.
    known: rows of earlier runs. A file with the path, size and time of one of them is not read again; one whose bytes have
    changed gets a new row. A file that cannot or must not be read gets a row with the reason.
    Raises ValueError if an input contains no videos or a list cannot be parsed, FileNotFoundError if an input does not exist.
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
    except BaseException:  # including Ctrl-C; stops downloads in progress at once
        access.downloader.stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    new, amended = settle(number_unread(found), known, access.replace_licenses)
    ids = {row.video_id for row in known}  # drops files that were touched but have the same bytes
    marked = mark_duplicates(new, known)
    return Survey(sorted((row for row in marked if row.video_id not in ids), key=lambda row: row.video_id), amended)


# -- inputs -> entries -------------------------------------------------------------------------------------------------


def expand(given: str, access: Access) -> list[Entry]:
    """Return the videos of one input, sorted by path."""
    here = not is_url(given)
    if here and os.path.isdir(given):
        found = sorted(walk(os.path.abspath(given)), key=lambda entry: entry.location)
    elif lists.is_list(given):
        found = from_list(given, access)
    elif here and os.path.exists(given):  # before globs, since file names may contain brackets
        found = [Entry(os.path.abspath(given))]
    elif any(c in (public_name(given) if is_web(given) else given) for c in "*?["):
        found = [Entry(path) for path in glob(given) if is_video(path)]
    elif here:
        raise FileNotFoundError(f"{given}: file or folder not found")
    else:
        found = [Entry(given)]
    if not found:
        raise ValueError(f"{public_name(given)} does not contain videos ({' '.join(VIDEO_SUFFIXES)})")
    return found


def is_video(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES


def walk(folder: str) -> Iterator[Entry]:
    """Yield the videos below a folder, and the folders that cannot be listed. Links to folders are not followed."""
    errors: list[OSError] = []
    linked = []
    for top, folders, files in os.walk(folder, onerror=errors.append):
        yield from (Entry(os.path.join(top, name)) for name in files if is_video(name))
        linked += [path for name in folders if os.path.islink(path := os.path.join(top, name))]
    if linked:
        print(
            f"skipped {len(linked)} links to folders, such as {linked[0]!a}: pass their targets instead",
            file=sys.stderr,
        )
    for error in errors:
        yield Entry(os.fsdecode(error.filename), problem=f"the folder cannot be listed: {error.strerror}; {AGAIN}")


def glob(pattern: str) -> list[str]:
    """Return the matching paths, sorted; URLs keep their protocol."""
    if not is_url(pattern):
        return sorted(LocalFileSystem().glob(os.path.abspath(pattern)))
    filesystem, local = fsspec.core.url_to_fs(pattern)
    return [filesystem.unstrip_protocol(path) for path in sorted(filesystem.glob(local))]


def from_list(path: str, access: Access) -> list[Entry]:
    """Return the rows of a list given by the user; relative paths are resolved from its folder."""
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
            problem = "lists at web addresses must not contain local files"
        else:
            location = os.path.abspath(location)
        out.append(replace(row, location=location, problem=problem))
    return out


def list_bytes(path: str, access: Access) -> bytes:
    """Return the bytes of a list. Raises OSError or ValueError if it cannot be read."""
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
    """Merge entries with the same location, in order of first occurrence."""
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
    """Return the row of a location with the id of its bytes; that of `known`, its earlier rows, if the file is unchanged."""
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
    """Return a row with only the path and the metadata of the inputs."""
    path, problem = public_name(entry.location), entry.problem
    try:
        path.encode()
    except UnicodeEncodeError:
        path = os.fsencode(path).decode(errors="backslashreplace")
        problem = "its name is not UTF-8: rename it"
    return Source("", path, entry.license, entry.source, entry.label, bytes=0, duplicate_of="", unreadable=problem)


def stat(row: Source) -> Source:
    """Return the row with the size and, for a local file, the time of last change; unchanged if they are not available.

    Files that are not regular (a FIFO, a device) are never opened, since opening may block forever.
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
    except Exception:  # file systems do not always raise OSError for an unavailable server
        return row  # `identify` meets the same error and records it


def _kind(mode: int) -> str:
    kinds = {modes.S_IFIFO: "a FIFO", modes.S_IFSOCK: "a socket", modes.S_IFDIR: "a folder"}
    return kinds.get(modes.S_IFMT(mode), "a device")


def identify(row: Source) -> Source:
    """Return the row with the id of its bytes; "unread-" and a hash of its path if they cannot be read."""
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
    if problem:  # stays in the manifest, where ingest reports it as failed
        return replace(row, video_id=unread_id(row.path), unreadable=problem)
    return replace(row, video_id=total.hexdigest()[:16])


def unread_id(path: str) -> str:
    return f"{UNREAD}{hashlib.sha256(path.encode()).hexdigest()[:16]}"


def reason(error: Exception) -> str:
    """Return an error message without secrets."""
    if isinstance(error, DownloadError):
        return str(error)
    text = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
    return scrub(f"it cannot be read: {text}")


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading. Raises ValueError, without blocking, for a FIFO or another special file."""
    mode = os.stat(path).st_mode
    if modes.S_ISREG(mode):
        # non-blocking in case it has been replaced by a FIFO
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
        mode = os.fstat(file.fileno()).st_mode
        if modes.S_ISREG(mode):
            return file
        file.close()
    raise ValueError(f"{path} is {_kind(mode)}, not a file")


class _Sink:
    """Destination of a download that writes to a file and computes the hash."""

    def __init__(self, file: BinaryIO):
        self.file, self.sha, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.sha.update(data)
        self.size += len(data)


def downloaded(row: Source, listed: Listed, known: Sequence[Source], access: Access) -> Source:
    """Return the row of a URL whose copy is kept in the work folder, since the URL may have a secret or change its content.

    A file is not downloaded again if the server states the size and time of one of `known` with a copy. If a download fails and
    there is one copy, the copy is used.
    """
    files = access.files
    if files is None:
        raise ValueError(f"{row.path}: URLs are downloaded to a work folder, but none was given")
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
            files.store_download(scratch, video_id)
        return replace(row, video_id=video_id, bytes=sink.size, modified_ns=answer.modified_ns)
    except ImportError:
        raise
    except Exception as error:
        if len(kept) == 1:
            print(f"{row.path}: {reason(error)}: using the existing copy", file=sys.stderr)
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
    """Give distinct ids to unreadable URLs that have the same public name because they differ only in their queries."""
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
    """Make ids unique: of files with the same bytes the first by path keeps the id, unless a known one has it."""
    first = {row.video_id: public_name(row.path) for row in known if not row.duplicate_of}
    marked = []
    for row in sorted(new, key=lambda row: row.path):
        original = first.get(row.video_id)
        first.setdefault(row.video_id, row.path)
        if original == row.path:  # known, or the same bytes at two queries of one address
            continue
        if original is not None:
            copied = hashlib.sha256(row.path.encode()).hexdigest()[:8]
            row = replace(row, video_id=f"{row.video_id}-dup-{copied}", duplicate_of=original)
        marked.append(row)
    return marked
