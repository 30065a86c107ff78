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
from pipelines.sources.download import (
    Downloader,
    DownloadError,
    RemoteFileInfo,
    TransferMonitor,
    check_listed,
    write_chunks,
)
from pipelines.sources.licences import Statement, resolve_licences
from pipelines.sources.lists import Entry

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
CHUNK = 1 << 20  # bytes read at a time
MAX_LIST_BYTES = 1 << 30
UNREADABLE_PREFIX = "unread-"
RETRY_HINT = "re-run `a2data run` with the same input to retry"


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
class ListedVideo:
    """One location with everything that the inputs state about it."""

    entry: Entry  # its first entry, with blank fields filled from the others
    statements: list[Statement]
    trusted: bool


class IdentifiedSource(NamedTuple):
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
    listed = merge_entries(entry for input_ in inputs for entry in expand(input_, access))
    by_path: dict[str, list[Source]] = {}
    for row in known:
        by_path.setdefault(public_name(row.path), []).append(row)
    pool = ThreadPoolExecutor(threads)
    try:
        identified = list(
            pool.map(
                lambda video: identify_listed(video, by_path.get(public_name(video.entry.location), []), access), listed
            )
        )
    except BaseException:  # including Ctrl-C; stops downloads in progress at once
        access.downloader.stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    new, amended = resolve_licences(number_unreadable(identified), known, access.replace_licenses)
    ids = {row.video_id for row in known}  # drops files that were touched but have the same bytes
    unique = mark_duplicates(new, known)
    return Survey(sorted((row for row in unique if row.video_id not in ids), key=lambda row: row.video_id), amended)


# -- inputs -> entries -------------------------------------------------------------------------------------------------


def expand(input_: str, access: Access) -> list[Entry]:
    """Return the videos of one input, sorted by path."""
    is_local = not is_url(input_)
    if is_local and os.path.isdir(input_):
        entries = sorted(walk(os.path.abspath(input_)), key=lambda entry: entry.location)
    elif lists.is_list(input_):
        entries = read_list(input_, access)
    elif is_local and os.path.exists(input_):  # before globs, since file names may contain brackets
        entries = [Entry(os.path.abspath(input_))]
    elif any(c in (public_name(input_) if is_web(input_) else input_) for c in "*?["):
        entries = [Entry(path) for path in glob(input_) if is_video(path)]
    elif is_local:
        raise FileNotFoundError(f"{input_}: file or folder not found")
    else:
        entries = [Entry(input_)]
    if not entries:
        raise ValueError(f"{public_name(input_)} does not contain videos ({' '.join(VIDEO_SUFFIXES)})")
    return entries


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
        yield Entry(os.fsdecode(error.filename), problem=f"the folder cannot be listed: {error.strerror}; {RETRY_HINT}")


def glob(pattern: str) -> list[str]:
    """Return the matching paths, sorted; URLs keep their protocol."""
    if not is_url(pattern):
        return sorted(LocalFileSystem().glob(os.path.abspath(pattern)))
    filesystem, local = fsspec.core.url_to_fs(pattern)
    return [filesystem.unstrip_protocol(path) for path in sorted(filesystem.glob(local))]


def read_list(path: str, access: Access) -> list[Entry]:
    """Return the rows of a list given by the user; relative paths are resolved from its folder."""
    if path.startswith("file://"):
        path = LocalFileSystem._strip_protocol(path)
    if not is_url(path):
        path = os.path.abspath(path)
    rows = lists.entries(list_bytes(path, access), path, access.list_encoding)
    entries = []
    for row in rows:
        location = lists.resolve_location(row.location, path)
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
        entries.append(replace(row, location=location, problem=problem))
    return entries


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


def merge_entries(entries: Iterable[Entry]) -> list[ListedVideo]:
    """Merge entries with the same location, in order of first occurrence."""
    by_location: dict[str, ListedVideo] = {}
    for entry in entries:
        listed = by_location.setdefault(entry.location, ListedVideo(entry, [], entry.trusted))
        blanks = {
            name: getattr(entry, name) for name in ("license", "source", "label") if not getattr(listed.entry, name)
        }
        listed.entry = replace(listed.entry, **blanks, problem=listed.entry.problem and entry.problem)
        listed.trusted |= entry.trusted
        if entry.license:
            listed.statements.append(Statement(entry.license, entry.stated_in))
    return list(by_location.values())


# -- entries -> rows ---------------------------------------------------------------------------------------------------


def identify_listed(listed: ListedVideo, known: Sequence[Source], access: Access) -> IdentifiedSource:
    """Return the row of a location with the id of its bytes; that of `known`, its earlier rows, if the file is unchanged."""
    entry = listed.entry
    row = unidentified_row(entry)
    if row.unreadable:
        return IdentifiedSource(with_content_id(row), listed.statements)
    if is_web(entry.location) or row.path != entry.location:
        return IdentifiedSource(download_row(row, listed, known, access), listed.statements)
    row = with_file_stat(row)
    for known_row in known:
        unchanged = (known_row.bytes, known_row.modified_ns) == (row.bytes, row.modified_ns)
        if unchanged and not known_row.video_id.startswith(UNREADABLE_PREFIX):
            return IdentifiedSource(known_row, listed.statements)
    return IdentifiedSource(with_content_id(row), listed.statements)


def unidentified_row(entry: Entry) -> Source:
    """Return a row with only the path and the metadata of the inputs."""
    path, problem = public_name(entry.location), entry.problem
    try:
        path.encode()
    except UnicodeEncodeError:
        path = os.fsencode(path).decode(errors="backslashreplace")
        problem = "its name is not UTF-8: rename it"
    return Source("", path, entry.license, entry.source, entry.label, bytes=0, duplicate_of="", unreadable=problem)


def with_file_stat(row: Source) -> Source:
    """Return the row with the size and, for a local file, the time of last change; unchanged if they are not available.

    Files that are not regular (a FIFO, a device) are never opened, since opening may block forever.
    """
    try:
        if not is_url(row.path):
            facts = os.stat(row.path)
            if not modes.S_ISREG(facts.st_mode):
                return replace(row, unreadable=f"is {_file_type(facts.st_mode)}, not a file")
            return replace(row, bytes=facts.st_size, modified_ns=facts.st_mtime_ns)
        filesystem, path = fsspec.core.url_to_fs(row.path)
        return replace(row, bytes=filesystem.size(path) or 0)
    except ImportError:
        raise
    except Exception:  # file systems do not always raise OSError for an unavailable server
        return row  # `with_content_id` meets the same error and records it


def _file_type(mode: int) -> str:
    kinds = {modes.S_IFIFO: "a FIFO", modes.S_IFSOCK: "a socket", modes.S_IFDIR: "a folder"}
    return kinds.get(modes.S_IFMT(mode), "a device")


def with_content_id(row: Source) -> Source:
    """Return the row with the id of its bytes; "unread-" and a hash of its path if they cannot be read."""
    digest, problem = hashlib.sha256(), row.unreadable
    try:
        if not problem:
            with open_regular(row.path) if not is_url(row.path) else fsspec.open(row.path, "rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
    except ImportError:
        raise
    except Exception as error:
        problem = f"{safe_message(error)}; {RETRY_HINT}"
    if problem:  # stays in the manifest, where ingest reports it as failed
        return replace(row, video_id=unreadable_id(row.path), unreadable=problem)
    return replace(row, video_id=digest.hexdigest()[:16])


def unreadable_id(path: str) -> str:
    return f"{UNREADABLE_PREFIX}{hashlib.sha256(path.encode()).hexdigest()[:16]}"


def safe_message(error: Exception) -> str:
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
    raise ValueError(f"{path} is {_file_type(mode)}, not a file")


class _Sink:
    """Destination of a download that writes to a file and computes the hash."""

    def __init__(self, file: BinaryIO):
        self.file, self.sha, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.sha.update(data)
        self.size += len(data)


def download_row(row: Source, listed: ListedVideo, known: Sequence[Source], access: Access) -> Source:
    """Return the row of a URL whose copy is kept in the work folder, since the URL may have a secret or change its content.

    A file is not downloaded again if the server states the size and time of one of `known` with a copy. If a download fails and
    there is one copy, the copy is used.
    """
    files = access.files
    if files is None:
        raise ValueError(f"{row.path}: URLs are downloaded to a work folder, but none was given")
    with_copy = [
        old for old in known if not old.video_id.startswith(UNREADABLE_PREFIX) and files.has(_content_id(old.video_id))
    ]
    unchanged: list[Source] = []

    def has_changed(info: RemoteFileInfo) -> bool:
        unchanged[:] = [old for old in with_copy if info.modified_ns and info == (old.bytes, old.modified_ns)]
        return not unchanged

    scratch = files.scratch()
    try:
        with open(scratch, "wb") as file:
            sink = _Sink(file)
            info = _fetch(listed, sink, access, has_changed)
        if info is None:
            return unchanged[0]
        video_id = sink.sha.hexdigest()[:16]
        if not files.has(video_id):
            files.store_download(scratch, video_id)
        return replace(row, video_id=video_id, bytes=sink.size, modified_ns=info.modified_ns)
    except ImportError:
        raise
    except Exception as error:
        if len(with_copy) == 1:
            print(f"{row.path}: {safe_message(error)}: using the existing copy", file=sys.stderr)
            return with_copy[0]
        return replace(
            row,
            video_id=unreadable_id(row.path),
            unreadable=f"the download failed: {safe_message(error)}; {RETRY_HINT}",
        )
    finally:
        if os.path.exists(scratch):
            os.remove(scratch)


def _fetch(listed: ListedVideo, sink: _Sink, access: Access, accept: Any) -> RemoteFileInfo | None:
    location, downloader = listed.entry.location, access.downloader
    if is_web(location):
        return downloader.get(location, sink, listed.trusted, accept)
    monitor = TransferMonitor(downloader.limits, downloader.stop)

    def chunks() -> Iterator[bytes]:
        with fsspec.open(location, "rb") as file:
            while chunk := file.read(CHUNK):
                monitor.count(len(chunk))
                yield chunk

    write_chunks(chunks(), sink, monitor)
    return RemoteFileInfo(None, 0)


def _content_id(video_id: str) -> str:
    return video_id.partition("-dup-")[0]


def number_unreadable(identified: Sequence[IdentifiedSource]) -> list[IdentifiedSource]:
    """Give distinct ids to unreadable URLs that have the same public name because they differ only in their queries."""
    counts: dict[str, int] = {}
    numbered = []
    for source in identified:
        row = source.row
        if row.video_id.startswith(UNREADABLE_PREFIX):
            number = counts[row.path] = counts.get(row.path, 0) + 1
            row = replace(row, video_id=unreadable_id(f"{row.path}#{number}" if number > 1 else row.path))
        numbered.append(IdentifiedSource(row, source.statements))
    return numbered


def mark_duplicates(new: Iterable[Source], known: Iterable[Source] = ()) -> list[Source]:
    """Make ids unique: the first path of the files with the same bytes keeps the id, unless a known row has it."""
    first_path = {row.video_id: public_name(row.path) for row in known if not row.duplicate_of}
    marked = []
    for row in sorted(new, key=lambda row: row.path):
        original = first_path.get(row.video_id)
        first_path.setdefault(row.video_id, row.path)
        if original == row.path:  # known, or the same bytes at two queries of one address
            continue
        if original is not None:
            path_hash = hashlib.sha256(row.path.encode()).hexdigest()[:8]
            row = replace(row, video_id=f"{row.video_id}-dup-{path_hash}", duplicate_of=original)
        marked.append(row)
    return marked
