"""What would be done, and why; what is done; what failed. Reads footers only."""

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
    """The jobs of a stage that would be done, and why."""

    stage: str
    todo: int
    total: int
    reasons: dict[str, int]


def plan(stages: Sequence[Stage], store: Store, shards: Sequence[int]) -> list[Step]:
    """What `run` would do with these settings. Jobs that follow from others count, though some may turn out to be fresh."""
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
    """Why this job must be done; "" where it need not be."""
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
    return "" if store.fresh(stage, job) else "its input changed"


def failures(store: Store, names: Sequence[str]) -> list[tuple[str, int, str, str]]:
    """(stage, shard, unit, sentence) of everything that failed; unit "" for a job that could not be done as a whole."""
    found = []
    for name in names:
        for file in store.names(name):
            if file.endswith(".broken"):
                found.append((name, int(file.split(".")[0]), "", (store.get(name, file) or b"").decode()))
        for shard, path in store.damaged(name).items():
            found.append((name, shard, "", f"the part was damaged and is now {path}: the next run makes it again"))
        for shard in store.shards(name):
            footer = store.footer(name, shard)
            found += [(name, shard, unit, why) for unit, why in sorted(footer.failed.items())] if footer else []
    return found


def all_failed(store: Store, names: Sequence[str]) -> list[str]:
    """A sentence for each stage of which every unit failed, with the most frequent error. Rejected units did not fail."""
    found = []
    for name in names:
        footers = [footer for shard in store.shards(name) if (footer := store.footer(name, shard))]
        errors = Counter(why for footer in footers for why in footer.failed.values())
        units = sum(footer.num_inputs for footer in footers)
        if errors and errors.total() >= units:
            found.append(
                f"every unit of {name} failed ({errors.total()} of {units}), such as with {errors.most_common(1)[0][0]}"
            )
    return found


def sources(store: Store, shards: Iterable[int]) -> dict[tuple[int, str], Source]:
    """The lines of the manifest by shard and video_id, of these shards."""
    return {(n, source.video_id): source for n in sorted(set(shards)) for source in store.read("manifest", n, Source)}


def replaced(source: Source) -> bool:
    """Whether the file has other bytes than when it was listed: it is another video then, which the next run takes in."""
    if source.path != public_name(source.path) or is_web(source.path):
        return False  # it is downloaded again by the next `a2data run` with its list
    now = manifest.stat(replace(source, unreadable=""))
    if (now.bytes, now.modified_ns) == (source.bytes, source.modified_ns):
        return False
    return not source.video_id.startswith(manifest.identify(now).video_id)
