"""A folder, local or in an object store, with atomic writes."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
from pyarrow import fs as arrow_fs

NOTE_BYTES = 4096  # length of a note, padded, so that a shorter note completely replaces a longer one


def file_sha256(path: str | os.PathLike) -> str:
    """Return the sha256 of a local file in hexadecimal, without holding the file in memory. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Stamp(NamedTuple):
    """What a listing says of a file; both change when it is replaced, unless within a tick of the clock."""

    bytes: int
    modified_ns: int  # 0 if the file system does not say


class Folder:
    """A local folder, or a URL that pyarrow or fsspec opens (s3://, gs://, …)."""

    def __init__(self, root: str | os.PathLike):
        self.root = str(root)
        self.fs, self.base = _filesystem(self.root)
        self.local = isinstance(self.fs, arrow_fs.LocalFileSystem)

    def __reduce__(self) -> tuple:
        # file systems do not pickle, and workers may have another working directory
        return type(self), (self.base if self.local else self.root,)

    def path(self, *names: str) -> str:
        """Return the full path of a file below this folder. Raises ValueError for a name that leads out of it."""
        for name in names:
            if "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
                raise ValueError(f"{name!r} is not a path inside {self.root}")
        return "/".join((self.base, *names))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return name -> size of the files in this folder or one below; {} if the folder does not exist."""
        path = self.path(folder) if folder else self.base
        infos = self.fs.get_file_info(arrow_fs.FileSelector(path, allow_not_found=True))
        return {info.base_name: info.size for info in sorted(infos, key=lambda i: i.base_name) if info.is_file}

    def listing(self, folder: str) -> tuple[list[str], list[int], list[int]]:
        """Return names, sizes and modification times, in ns, of the files in a folder, by name; none if it does not exist.

        The time is 0 if the file system does not say; it or the size changes when a file is replaced, unless within a tick of the
        clock.
        """
        path = self.path(folder)
        if self.local:
            files = _local_listing(path)
        elif isinstance(
            getattr(self.fs, "handler", None), arrow_fs.FSSpecHandler
        ):  # which hides the times of most file systems
            files = _fsspec_listing(self.fs.handler.fs, path)
        else:
            infos = self.fs.get_file_info(arrow_fs.FileSelector(path, allow_not_found=True))
            files = [(i.base_name, i.size, i.mtime_ns or 0) for i in infos if i.type == arrow_fs.FileType.File]
        files.sort()
        return tuple(map(list, zip(*files, strict=True))) if files else ([], [], [])  # type: ignore[return-value]

    def entries(self) -> list[str]:
        """Return the names of the files and folders in this folder, sorted."""
        infos = self.fs.get_file_info(arrow_fs.FileSelector(self.base, allow_not_found=True))
        return sorted(info.base_name for info in infos)

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in this folder or one below, sorted."""
        return list(self.sizes(folder))

    @contextlib.contextmanager
    def writing(self, *names: str) -> Iterator[pa.NativeFile]:
        """Yield a stream whose file appears atomically when the block ends; if the block raises, the file is not written."""
        path = self.path(*names)
        scratch = self.scratch(path)
        try:
            with self.fs.open_output_stream(scratch) as out:
                yield out
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                self.fs.delete_file(scratch)
            raise
        self.publish(scratch, path)

    @contextlib.contextmanager
    def draft(self) -> Iterator[tuple[BinaryIO, Callable[[str], None]]]:
        """Yield a file to write and a function that publishes it atomically under a name chosen after writing.

        A draft that is not published is removed. Object stores cannot rename, so there the draft is a local temporary file, which
        is uploaded on publishing.
        """
        if not self.local:
            with tempfile.TemporaryFile() as spool:

                def upload(name: str) -> None:
                    spool.seek(0)
                    with self.writing(name) as out:
                        shutil.copyfileobj(spool, out, 1 << 20)

                yield spool, upload
            return
        scratch = self.scratch(self.path("draft"))
        try:
            with open(scratch, "wb") as file:

                def rename(name: str) -> None:
                    file.flush()
                    self.publish(scratch, self.path(name))

                yield file, rename
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(scratch)

    def put(self, data: bytes, *names: str) -> None:
        """Write a small file atomically."""
        with self.writing(*names) as out:
            out.write(data)

    def write_text(self, text: str, *names: str) -> None:
        """Rewrite a note of at most NOTE_BYTES in an existing folder.

        On a local disk the note is written in place, in one write, and not atomically: ext4 flushes a file that is renamed over
        another, which takes milliseconds each time.
        """
        data = text.encode().ljust(NOTE_BYTES)
        if not self.local:
            self.put(data, *names)
            return
        file = os.open(self.path(*names), os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.write(file, data)
        finally:
            os.close(file)

    def reading(self, *names: str) -> pa.NativeFile:
        """Open a file for random access. Raises FileNotFoundError."""
        return self.fs.open_input_file(self.path(*names))

    def sha256(self, *names: str) -> str:
        """Return the sha256 of a file in hexadecimal. Raises FileNotFoundError."""
        with self.reading(*names) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def get(self, *names: str) -> bytes | None:
        """Return the bytes of a small file; None if it does not exist."""
        try:
            with self.fs.open_input_stream(self.path(*names)) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def remove(self, *names: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.delete_file(self.path(*names))

    def scratch(self, path: str) -> str:
        """Return a temporary path beside `path`; on an object store, where uploads are atomic, `path` itself."""
        self.fs.create_dir(path.rsplit("/", 1)[0], recursive=True)
        # not the process id, which may occur on several nodes
        return f"{path}.{uuid.uuid4().hex}.tmp" if self.local else path

    def publish(self, scratch: str, path: str) -> None:
        if self.local:
            with open(scratch, "rb") as written:
                os.fsync(written.fileno())
            os.replace(scratch, path)

    def remove_stale_temp_files(self, folder: str, names: Iterable[str]) -> bool:
        """Remove leftovers of earlier runs: half-written files, progress notes, notes of failed jobs, ledgers of one table.

        Returns whether there were any.

        names: the files of the folder. Called by the runner before it starts workers.
        """
        stale = [name for name in names if name.endswith((".tmp", ".doing", ".broken", ".ledger"))]
        for name in stale:
            self.remove(folder, name)
        return bool(stale)


def _filesystem(root: str) -> tuple[arrow_fs.FileSystem, str]:
    if "://" not in root:
        return arrow_fs.LocalFileSystem(), os.path.abspath(root)
    try:
        return arrow_fs.FileSystem.from_uri(root)
    except (ValueError, pa.ArrowInvalid):  # a scheme that Arrow does not support
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(root)
        return arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(filesystem)), path.rstrip("/")


Listing = list[tuple[str, int, int]]  # name, size, modification time in ns


def _local_listing(path: str) -> Listing:
    """Return what Arrow would, at a third of the CPU time."""
    files: Listing = []
    with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in entries:
            try:
                if entry.is_file():
                    stat = entry.stat()
                    files.append((entry.name, stat.st_size, stat.st_mtime_ns))
            except FileNotFoundError:  # removed meanwhile
                pass
    return files


def _fsspec_listing(fs: Any, path: str) -> Listing:
    fs.invalidate_cache(path)
    try:
        infos = fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    files = [info for info in infos if info["type"] == "file"]
    return [(info["name"].rsplit("/", 1)[-1], info["size"] or 0, _modified_ns(info)) for info in files]


def _modified_ns(info: Mapping[str, Any]) -> int:
    """Return the modification time in what fsspec says of a file; 0 if it is missing. Each file system names it differently."""
    names = ("mtime", "LastModified", "last_modified", "updated", "created")
    modified = next((info[name] for name in names if info.get(name)), 0)
    if isinstance(modified, str):
        modified = datetime.fromisoformat(modified)
    return int((modified.timestamp() if isinstance(modified, datetime) else modified) * 1e9)
