"""Enrolment: new sources are added to new shards of the manifest; in old shards only licences change."""

import sys
from collections.abc import Sequence
from itertools import count

from a2data.records import Source
from a2data.store.ledger import Ledger
from a2data.store.parquet import DamagedError
from a2data.store.source_files import FOLDER, SourceFiles
from a2data.store.tables import COPY_SUFFIX, Store
from pipelines.sources import forgotten
from pipelines.sources.download import Limits
from pipelines.sources.manifest import Access, survey

DEFAULT = Limits()


def enroll(
    store: Store,
    inputs: Sequence[str],
    videos_per_shard: int,
    access: Access | None = None,
    ledger: Ledger | None = None,
) -> list[int]:
    """Add every new source to a new shard and return all shards.

    Old shards keep their sources; a licence that is newly stated for one of them, or that contradicts, is recorded there. Raises
    ValueError if there are no sources at all.
    """
    access, ledger = access or Access(files=SourceFiles(store)), ledger or Ledger(store)
    move_damaged_lists(ledger)
    shards = ledger.shards("manifest")
    keep_copies(ledger)
    if not inputs and shards:  # the lists need not be read
        return shards
    rows = {shard: list(store.read("manifest", shard, Source)) for shard in shards}
    store.remove_stale_temp_files(FOLDER, store.names(FOLDER))
    surveyed = survey(list(inputs), [row for shard in shards for row in rows[shard]], access)
    new = forgotten.without_forgotten(store, surveyed.new)
    if access.files:
        for video_id in {row.video_id for row in surveyed.new} - {row.video_id for row in new}:
            access.files.remove(video_id)
    amended = {row.video_id: row for row in surveyed.amended}
    for shard in shards:
        if any(row.video_id in amended for row in rows[shard]):
            store.write("manifest", shard, Source, [amended.get(row.video_id, row) for row in rows[shard]])
    for row in surveyed.amended:
        change = (
            f"two licences, {row.license_conflict}" if row.license_conflict else f"the licence is now {row.license!r}"
        )
        print(f"{row.path}: {change}", file=sys.stderr)
    new = restore_lists(store, new)
    free_shards = count(max([*store.shards("manifest"), *store.damaged("manifest")], default=-1) + 1)
    for start, shard_number in zip(range(0, len(new), videos_per_shard), free_shards, strict=False):
        shard_sources = sorted(new[start : start + videos_per_shard], key=lambda source: source.video_id)
        store.write("manifest", shard_number, Source, shard_sources)
    ledger.refresh("manifest")
    shards = ledger.shards("manifest")
    if not shards:
        raise ValueError("no videos: pass files, folders, globs or manifests to `a2data run`")
    return shards


def keep_copies(ledger: Ledger) -> None:
    """Write copies of the lists in work folders created before copies existed."""
    names = set(ledger.names("manifest"))
    for shard in ledger.shards("manifest"):
        if f"{shard:05d}{COPY_SUFFIX}" not in names:
            ledger.store.keep_copy("manifest", shard)


def restore_lists(store: Store, new: Sequence[Source]) -> list[Source]:
    """Rewrite the damaged lists whose ingested videos are all given again. Returns the sources that are not in any of them.

    A list that is not rewritten stays missing, see check_sources; its number and its videos stay reserved.
    """
    remaining = {source.video_id: source for source in new}
    for shard in store.damaged("manifest"):
        footer = store.footer("ingest", shard)
        rejected = {reject.key for reject in footer.rejected} if footer else set()
        ids = {*store.values("ingest", shard, "video_id"), *footer.failed, *rejected} if footer else set()
        if ids and ids <= remaining.keys():
            store.write("manifest", shard, Source, [remaining.pop(video_id) for video_id in sorted(ids)])
    return [source for source in new if source.video_id in remaining]


def move_damaged_lists(ledger: Ledger) -> None:
    """Move damaged lists of sources aside and replace them by their copies, before the shards are counted.

    Reads the lists that are new or have changed since the last command; `a2data verify` reads all. Raises DamagedError if the
    rows of one are damaged; the command is then run again, see main.
    """
    store = ledger.store
    ledger.entries("manifest")
    for shard in ledger.reread_shards["manifest"]:
        try:
            store.check("manifest", shard)
        except FileNotFoundError:
            pass
        except DamagedError as error:
            raise store.set_aside(error) from error


def check_sources(ledger: Ledger) -> None:
    """Raise ValueError if a damaged list of sources was moved aside and not replaced, since runs cannot rebuild it."""
    for shard, path in ledger.store.damaged("manifest", ledger.names("manifest")).items():
        raise ValueError(
            f"{path}, the list of the sources of shard {shard}, and its copy are damaged: list the same videos again with "
            f"`a2data run VIDEOS --work {ledger.store.root}`, or delete that file to continue without the videos "
            "that are not listed"
        )
