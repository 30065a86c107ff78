"""Enrolment: every new source gets a place in a new shard of the manifest; nothing of an old shard changes but licences."""

import argparse
import sys
from collections.abc import Sequence
from itertools import count

from a2data.media.source_files import FOLDER, SourceFiles
from a2data.records import Source
from a2data.store.tables import COPY, Store
from pipelines.cli import session
from pipelines.corpus import forget
from pipelines.sources.download import Downloader, Limits
from pipelines.sources.manifest import Access, survey

DEFAULT = Limits()


def add_flags(sub: argparse.ArgumentParser) -> None:
    """Which sources may be read, and how."""
    sub.add_argument(
        "--max-source-bytes", type=_positive, default=DEFAULT.max_bytes, metavar="BYTES",
        help="largest video to download (default: %(default)s)",
    )  # fmt: skip
    sub.add_argument(
        "--source-timeout", type=_positive, default=int(DEFAULT.timeout_s), metavar="S",
        help="longest download, in seconds (default: %(default)s)",
    )  # fmt: skip
    sub.add_argument(
        "--allow-local-urls", action="store_true",
        help="let lists name file:// URLs and hosts that are not on the public internet",
    )  # fmt: skip
    sub.add_argument(
        "--list-encoding", default="", metavar="NAME",
        help="encoding of csv and jsonl lists (default: UTF-8, or what a byte order mark says)",
    )  # fmt: skip
    sub.add_argument(
        "--replace-licenses", action="store_true",
        help="the licences that the inputs state take the place of those of videos that are known",
    )  # fmt: skip


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def access(args: argparse.Namespace, store: Store) -> Access:
    """What the flags say."""
    limits = Limits(max_bytes=args.max_source_bytes, timeout_s=float(args.source_timeout))
    downloader = Downloader(limits, args.allow_local_urls)
    return Access(downloader, SourceFiles(store), args.list_encoding, args.replace_licenses)


def enroll(store: Store, inputs: Sequence[str], videos_per_shard: int, how: Access | None = None) -> list[int]:
    """Give every new source a place in a new shard; say which shards there are.

    Old shards keep their sources; a licence that is stated for one of them only now, or that contradicts, is entered there.
    Raises ValueError where there is no source at all.
    """
    how = how or Access(files=SourceFiles(store))
    session.move_damaged_lists(store)
    shards = store.shards("manifest")
    rows = {shard: list(store.read("manifest", shard, Source)) for shard in shards}
    keep_copies(store, shards)
    store.sweep([FOLDER])
    found = survey(list(inputs), [row for shard in shards for row in rows[shard]], how)
    new = forget.without_forgotten(store, found.new)
    if how.files:
        for video_id in {row.video_id for row in found.new} - {row.video_id for row in new}:
            how.files.remove(video_id)
    amended = {row.video_id: row for row in found.amended}
    for shard in shards:
        if any(row.video_id in amended for row in rows[shard]):
            store.write("manifest", shard, Source, [amended.get(row.video_id, row) for row in rows[shard]])
    for row in found.amended:
        what = (
            f"two licences, {row.license_conflict}" if row.license_conflict else f"the licence is now {row.license!r}"
        )
        print(f"{row.path}: {what}", file=sys.stderr)
    new = restore_lists(store, new)
    free = count(max([*store.shards("manifest"), *store.damaged("manifest")], default=-1) + 1)
    for start, number in zip(range(0, len(new), videos_per_shard), free, strict=False):
        chosen = sorted(new[start : start + videos_per_shard], key=lambda source: source.video_id)
        store.write("manifest", number, Source, chosen)
    shards = store.shards("manifest")
    if not shards:
        raise ValueError("no videos: name files, folders, globs or manifests after `a2data run`")
    return shards


def keep_copies(store: Store, shards: Sequence[int]) -> None:
    """Copy the lists of work folders from before there were copies."""
    there = set(store.names("manifest"))
    for shard in shards:
        if f"{shard:05d}{COPY}" not in there:
            store.keep_copy("manifest", shard)


def restore_lists(store: Store, new: Sequence[Source]) -> list[Source]:
    """Write the damaged lists again of which all ingested videos are named again. Returns the sources that are in none.

    A list that is not written again is still missing, see runs.check_sources: its number and its videos are not given away.
    """
    left = {source.video_id: source for source in new}
    for shard in store.damaged("manifest"):
        footer = store.footer("ingest", shard)
        rejected = {reject.key for reject in footer.rejected} if footer else set()
        ids = {*store.values("ingest", shard, "video_id"), *footer.failed, *rejected} if footer else set()
        if ids and ids <= left.keys():
            store.write("manifest", shard, Source, [left.pop(video_id) for video_id in sorted(ids)])
    return [source for source in new if source.video_id in left]
