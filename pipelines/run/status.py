"""Pending jobs with their reasons, progress and failures. Reads footers only."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from a2data.records import Source
from a2data.stage import Stage
from a2data.store.tables import Store
from a2data.store.url import is_web, public_name
from pipelines.run.schedule import Job, groups, jobs
from pipelines.sources import manifest


class Step(NamedTuple):
    """Pending jobs of a stage, with the number of jobs per reason."""

    stage: str
    todo: int
    total: int
    reasons: dict[str, int]


def plan(stages: Sequence[Stage], store: Store, shards: Sequence[int]) -> list[Step]:
    """Return the jobs that `run` would do with these settings.

    Jobs that depend on pending ones are counted, although some may turn out to be fresh.
    """
    remade: set[tuple[str, int]] = set()
    steps = []
    for group in groups(stages):
        for stage in group:
            reasons: Counter = Counter()
            for job in jobs(group, shards):
                why = reason(stage, store, job, remade)
                if why:
                    reasons[why] += 1
                    remade.update((stage.name(), shard) for shard in job)
            steps.append(Step(stage.name(), sum(reasons.values()), len(jobs(group, shards)), dict(reasons)))
    return steps


def reason(stage: Stage, store: Store, job: Job, remade: set[tuple[str, int]]) -> str:
    """Return why this job must run; "" if it need not."""
    follows = sorted({name for name in stage.reads for shard in job if (name, shard) in remade})
    footers = [store.footer(stage.name(), shard) for shard in job]
    if not all(footers):
        return "never made"
    old = footers[0]
    assert old is not None
    changed = [
        f"{n}: {old.settings.get(n)!r} → {v!r}" for n, v in stage.cache_fields().items() if old.settings.get(n) != v
    ]
    if changed:
        return "setting " + ", ".join(changed)
    if follows:
        return "follows from " + ", ".join(follows)
    if old.models != stage.models():
        return "another model"
    if old.version != stage.version:
        return f"code version {old.version} → {stage.version}"
    return "" if store.is_up_to_date(stage, job) else "input changed"


def failures(store: Store, names: Sequence[str]) -> list[tuple[str, int, str, str]]:
    """Return (stage, shard, unit, error message) of each failure; unit is "" for a job that failed as a whole."""
    found = []
    for name in names:
        for file in store.names(name):
            if file.endswith(".broken"):
                found.append((name, int(file.split(".")[0]), "", (store.get(name, file) or b"").decode()))
        for shard, path in store.damaged(name).items():
            found.append((name, shard, "", f"the part was damaged and moved to {path}; the next run rebuilds it"))
        for shard in store.shards(name):
            footer = store.footer(name, shard)
            found += [(name, shard, unit, why) for unit, why in sorted(footer.failed.items())] if footer else []
    return found


def all_failed(store: Store, names: Sequence[str]) -> list[str]:
    """Return a message for each stage of which every unit failed, with the most frequent error. Rejects are not failures."""
    found = []
    for name in names:
        footers = [footer for shard in store.shards(name) if (footer := store.footer(name, shard))]
        errors = Counter(why for footer in footers for why in footer.failed.values())
        units = sum(footer.num_inputs for footer in footers)
        if errors and errors.total() >= units:
            found.append(
                f"every unit of {name} failed ({errors.total()} of {units}), most often with {errors.most_common(1)[0][0]}"
            )
    return found


def sources(store: Store, shards: Iterable[int]) -> dict[tuple[int, str], Source]:
    """Return the manifest rows of these shards by (shard, video_id)."""
    return {(n, source.video_id): source for n in sorted(set(shards)) for source in store.read("manifest", n, Source)}


def replaced(source: Source) -> bool:
    """Return whether the content of a file has changed since it was listed. It is then a new video, added by the next run."""
    if source.path != public_name(source.path) or is_web(source.path):
        return False  # the next `a2data run` with its list downloads it again
    now = manifest.stat(replace(source, unreadable=""))
    if (now.bytes, now.modified_ns) == (source.bytes, source.modified_ns):
        return False
    return not source.video_id.startswith(manifest.identify(now).video_id)
