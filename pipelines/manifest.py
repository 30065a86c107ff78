"""What somebody wants in the corpus -> Source rows: folders, globs, files, URLs and lists of them, known by their bytes."""

import csv
import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq

from a2data.records import Source

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
LIST_SUFFIXES = (".csv", ".jsonl", ".parquet")
CHUNK = 1 << 20  # bytes read at a time


def sources(inputs: Iterable[str], known: Iterable[Source] = (), threads: int = 8) -> list[Source]:
    """The rows of everything in `inputs` that is not in `known` yet, sorted by video_id, whatever order it was found in.

    inputs: folders (with all below), globs, videos, URLs that fsspec opens (globs, too), and lists of videos: .csv, .jsonl
    or .parquet with a column "path" or "url" and, if they like, "license", "source" and "label". Local paths become absolute.
    known: rows of earlier runs. A file with the path, size and time of one of them is not read again; one whose bytes have
    changed gets a new row.
    Raises ValueError where an input gives no video, FileNotFoundError where it does not exist.
    """
    listed: dict[str, Source] = {}
    for given in inputs:
        for row in expand(given):
            listed.setdefault(row.path, row)
    known = list(known)
    seen = {(row.path, row.bytes, row.modified_ns) for row in known}
    with ThreadPoolExecutor(threads) as pool:
        stated = list(pool.map(stat, listed.values()))
        new = [row for row in stated if (row.path, row.bytes, row.modified_ns) not in seen]
        hashed = list(pool.map(identify, new))
    ids = {row.video_id for row in known}  # again: touched, but with the same bytes
    marked = mark_duplicates(hashed, known)
    return sorted((row for row in marked if row.video_id not in ids), key=lambda row: row.video_id)


def expand(given: str) -> list[Source]:
    """The videos that one input stands for, sorted by path; nothing is known of them yet but what a list says."""
    here = "://" not in given
    if os.path.splitext(given)[1].lower() in LIST_SUFFIXES:
        rows = from_list(given)
    elif here and os.path.isdir(given):
        paths = sorted(str(path) for path in Path(given).rglob("*") if path.is_file())
        rows = [blank(path) for path in paths if is_video(path)]
    elif here and os.path.exists(given):  # before globs: a file name may have brackets
        rows = [blank(given)]
    elif any(c in given for c in "*?["):
        rows = [blank(path) for path in glob(given) if is_video(path)]
    elif here:
        raise FileNotFoundError(f"{given}: there is no such file or folder")
    else:
        rows = [blank(given)]
    if not rows:
        raise ValueError(f"{given}: no video in it; looked for {' '.join(VIDEO_SUFFIXES)}")
    return rows


def is_video(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES


def glob(pattern: str) -> list[str]:
    """The paths that match, sorted; URLs keep their protocol."""
    filesystem, local = fsspec.core.url_to_fs(pattern)
    paths = sorted(filesystem.glob(local))
    return [filesystem.unstrip_protocol(path) for path in paths] if "://" in pattern else paths


def from_list(path: str) -> list[Source]:
    """The rows of a .csv, .jsonl or .parquet list; relative paths are seen from its folder.

    Raises ValueError, naming the line, for one without path or url.
    """
    suffix = os.path.splitext(path)[1].lower()
    with fsspec.open(path, "rb") as file:
        if suffix == ".parquet":
            lines = pq.read_table(file).to_pylist()
        elif suffix == ".jsonl":
            lines = [json.loads(line) for line in file.read().decode().splitlines() if line.strip()]
        else:
            lines = list(csv.DictReader(file.read().decode("utf-8-sig").splitlines()))
    folder = path.rpartition("/")[0]
    return [from_line(line, folder, f"{path}, row {number}") for number, line in enumerate(lines, 1)]


def from_line(line: dict[str, Any], folder: str, where: str) -> Source:
    path = str(line.get("path") or line.get("url") or "")
    if not path:
        raise ValueError(f'{where}: needs a "path" or a "url", has {", ".join(map(str, line)) or "nothing"}')
    if folder and "://" not in path and not os.path.isabs(path):
        path = f"{folder}/{path}"
    license, source, label = (str(line.get(name) or "") for name in ("license", "source", "label"))
    return replace(blank(path), license=license, source=source, label=label)


def blank(path: str) -> Source:
    """A row of which only the path is known."""
    path = path if "://" in path else os.path.abspath(path)
    return Source(video_id="", path=path, license="", source="", label="", bytes=0, duplicate_of="")


def stat(row: Source) -> Source:
    """The row with the size and, of a local file, the time of last change; as it is where that cannot be had."""
    try:
        if "://" not in row.path:
            facts = os.stat(row.path)
            return replace(row, bytes=facts.st_size, modified_ns=facts.st_mtime_ns)
        filesystem, path = fsspec.core.url_to_fs(row.path)
        return replace(row, bytes=filesystem.size(path) or 0)
    except OSError:
        return row  # `identify` will meet the same error, and names the row by it


def identify(row: Source) -> Source:
    """The row with the id that its bytes give it; "unread-" and a hash of its path where they cannot be read."""
    total = hashlib.sha256()
    try:
        with fsspec.open(row.path, "rb") as file:
            while chunk := file.read(CHUNK):
                total.update(chunk)
    except OSError:  # stays in the manifest: ingest will fail on it, by name
        return replace(row, video_id=f"unread-{hashlib.sha256(row.path.encode()).hexdigest()[:16]}")
    return replace(row, video_id=total.hexdigest()[:16])


def mark_duplicates(new: Iterable[Source], known: Iterable[Source] = ()) -> list[Source]:
    """Rows of which each id is used once: of files with the same bytes the first by path keeps it, unless a known one has it."""
    first = {row.video_id: row.path for row in known if not row.duplicate_of}
    marked = []
    for row in sorted(new, key=lambda row: row.path):
        original = first.setdefault(row.video_id, row.path)
        if original != row.path:
            copy = hashlib.sha256(row.path.encode()).hexdigest()[:8]
            row = replace(row, video_id=f"{row.video_id}-dup-{copy}", duplicate_of=original)
        marked.append(row)
    return marked
