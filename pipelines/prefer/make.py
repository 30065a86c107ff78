"""`a2data prefer make`: preference pairs by rule from packed triplets. A rerun makes only what is missing or changed.

    a2data prefer make SHARDS --out PAIRS [--checkpoint A2 --kinds "reversed|regenerated"] [--results "CROSS|COPY"]

PAIRS is a data set in the format of `pack`, with two more members a sample (a2data.dataset.pair). All pairs of a clip are in one
split, `train` or `eval`: that of the clip, or by the hash of its id. PAIRS/.a2data has the tables of the runner.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from a2data.dataset import writer
from a2data.dataset.triplet import Triplet, from_sample
from a2data.records import Packed
from a2data.store.folder import Folder
from a2data.store.ledger import Ledger
from a2data.store.tables import Store
from pipelines.encode import STATE, Run, choose_held_out, here, queue, read_index
from pipelines.prefer.stage import KINDS, Prefer, revision_of
from pipelines.run import verify
from pipelines.run.lock import exclusive_lock


def make(
    stage: Prefer,
    validation_fraction: float = 0.1,
    run: Run = here,
    retry: bool = False,
    log: Callable[[str], Any] = print,
) -> dict[str, int]:
    """Make the pairs and return their number by "split/kind". `run` runs the jobs; `retry` remakes tars with failed clips.

    Raises ValueError if a tar could not be processed, after the others are, and if no pair is left.
    """
    source, target, store = Folder(stage.shards), Folder(stage.out), Store(f"{stage.out.rstrip('/')}/{STATE}")
    if stage.checkpoint:
        from model_zoo.a2 import checkpoint

        stage = replace(stage, checkpoint_revision=checkpoint.digest(checkpoint.check(stage.checkpoint))[:16])
    if stage.results:
        stage = replace(stage, results_revision=" ".join(map(revision_of, stage.results.split("|"))))
    index = read_index(source)
    held_out = {row.clip_id for row in index if row.split not in ("", "train")}
    if not held_out:
        held_out = choose_held_out([row.clip_id for row in index], validation_fraction)
    with exclusive_lock(store):
        names = queue(store, index, held_out, stage.name())
        verify.forget_damaged_tars(Ledger(store), target, hashed=False, stage=stage.name())
        for shard in names if retry else ():
            if (footer := store.footer(stage.name(), shard)) and footer.failed:
                store.remove(stage.name(), f"{shard:05d}.parquet")
        summary = run([stage], store, list(names), names)
        if summary.failed_jobs or summary.blocked:
            tars = ", ".join(names[shard] for _, (shard, *_) in summary.failed_jobs) or "some tars"
            error = next(iter(summary.failed_jobs.values()), "the run ended before")
            raise ValueError(f"no pairs of {tars} in {stage.shards}: {error}")
        return publish(store, target, stage, log)


def publish(store: Store, target: Folder, stage: Prefer, log: Callable[[str], Any]) -> dict[str, int]:
    """Write index and manifest, report what was left out and return the number of pairs by "split/kind"."""
    shards = store.shards(stage.name())
    rows = [row for shard in shards for row in store.read(stage.name(), shard, Packed)]
    footers = [footer for shard in shards if (footer := store.footer(stage.name(), shard))]
    reasons: dict[str, int] = {}
    for reject in (reject for footer in footers for reject in footer.rejected):
        reasons[reject.reason] = reasons.get(reject.reason, 0) + 1
    failed = {clip: error for footer in footers for clip, error in footer.failed.items()}
    for clip, error in failed.items():
        log(f"failed {clip}: {error}")
    rejections = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    if not rows:
        raise ValueError(
            f"no pairs from {stage.shards}: {rejections or next(iter(failed.values()), 'no kind applies')}"
        )
    if rejections:
        log(f"rejected: {rejections}")
    details = {reject.key: reject.detail for footer in footers for reject in footer.rejected}
    settings = {name: value for name, value in asdict(stage).items() if name not in stage.uncached_fields}
    writer.finish(target, rows, {"prefer": settings, "models": stage.models(), "rejected": details, "failed": failed})
    counts: dict[str, int] = {}
    for row in rows:
        name = f"{row.split}/{kind_of(row.clip_id)}"
        counts[name] = counts.get(name, 0) + 1
    return counts


def kind_of(key: str) -> str:
    """Return the kind in the key of a pair, "<clip_id>-<kind>-<grade>"."""
    return next(kind for kind in (*KINDS, "results") if key.rpartition("-")[0].endswith(f"-{kind}"))


def read(folder: Folder, row: Packed) -> Triplet:
    """Return a pair of a data set. Raises ValueError with its key if the sample is not a pair or damaged."""
    members = writer.read_sample(folder, row.clip_id, row.shard, row.offset, row.bytes)
    triplet = from_sample(members | {"__key__": row.clip_id})
    if triplet.pair is None:
        raise ValueError(
            f"{folder.root} has the sample {row.clip_id}, which is not a pair: make pairs with `a2data prefer make`"
        )
    return triplet
