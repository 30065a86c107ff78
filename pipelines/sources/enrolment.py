"""Enrolment: every new source gets a place in a new shard of the manifest; nothing of an old shard changes but licences."""

import sys
from collections.abc import Sequence
from itertools import count

from a2data.records import Source
from a2data.store.source_files import FOLDER, SourceFiles
from a2data.store.tables import COPY, Store
from pipelines.sources import forgotten
from pipelines.sources.download import Limits
from pipelines.sources.manifest import Access, survey

DEFAULT = Limits()


def enroll(store: Store, inputs: Sequence[str], videos_per_shard: int, how: Access | None = None) -> list[int]:
    """Give every new source a place in a new shard; say which shards there are.

    Old shards keep their sources; a licence that is stated for one of them only now, or that contradicts, is entered there.
    Raises ValueError where there is no source at all.
    """
    how = how or Access(files=SourceFiles(store))
    move_damaged_lists(store)
    shards = store.shards("manifest")
    rows = {shard: list(store.read("manifest", shard, Source)) for shard in shards}
    keep_copies(store, shards)
    store.sweep([FOLDER])
    found = survey(list(inputs), [row for shard in shards for row in rows[shard]], how)
    new = forgotten.without_forgotten(store, found.new)
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


def move_damaged_lists(store: Store) -> None:
    """Move damaged lists of sources aside, and put their copies in their place, before the shards are counted."""
    for shard in store.shards("manifest"):
        store.footer("manifest", shard)


def check_sources(store: Store) -> None:
    """Raise ValueError if a damaged list of sources was moved aside and not listed again: no run can make it."""
    for shard, path in store.damaged("manifest").items():
        raise ValueError(
            f"{path} held the sources of shard {shard} and is damaged, and so is its copy: name the same videos in `a2data run "
            f"VIDEOS --work {store.root}` to list them again, or remove that file to go on without those that are not listed"
        )
