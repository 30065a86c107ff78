"""Pending jobs with their reasons, progress and failures, by the ledger; only the parts with failed units are opened."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from a2data.records import Source
from a2data.stage import Stage
from a2data.store.ledger import Ledger
from a2data.store.tables import Footer, Store
from a2data.store.url import is_web, public_name
from pipelines.run.schedule import Job, groups, jobs
from pipelines.sources import manifest


class Step(NamedTuple):
    """Pending jobs of a stage, with the number of jobs per reason."""

    stage: str
    todo: int
    total: int
    reasons: dict[str, int]


def plan(stages: Sequence[Stage], ledger: Ledger, shards: Sequence[int]) -> list[Step]:
    """Return the jobs that `run` would do with these settings.

    Jobs that depend on pending ones are counted, although some may turn out to be fresh.
    """
    pending_shards: dict[str, set[int]] = {}
    steps = []
    for group in groups(stages):
        for stage in group:
            reasons: Counter = Counter()
            pending = pending_shards[stage.name()] = set()
            all_jobs = jobs(group, shards)
            reason_of = stale_reason(stage, ledger, pending_shards)
            for job in stale_jobs(stage, ledger, all_jobs, pending_shards):
                if reason := reason_of(job):
                    reasons[reason] += 1
                    pending.update(job)
            steps.append(Step(stage.name(), sum(reasons.values()), len(all_jobs), dict(reasons)))
    return steps


def progress(stages: Sequence[Stage], ledger: Ledger) -> list[dict[str, Any]]:
    """Return the counts of each stage: parts that are fresh, all parts, units done, rejects and failed units."""
    rows = []
    for step in plan(stages, ledger, ledger.shards("manifest")):
        entries = ledger.entries(step.stage)
        rejected, failed, inputs = (
            int(entries.column(f"num_{name}").sum()) for name in ("rejected", "failed", "inputs")
        )
        counts = {"fresh": step.total - step.todo, "parts": step.total, "done": inputs - failed}
        rows.append({"stage": step.stage, **counts, "rejected": rejected, "failed": failed})
    return rows


def stale_jobs(stage: Stage, ledger: Ledger, all_jobs: Sequence[Job], pending_shards: dict[str, set[int]]) -> list[Job]:
    """Return the jobs of a stage whose parts are not fresh or whose inputs are pending. pending_shards: see `stale_reason`."""
    pending_inputs = set[int]().union(*(pending_shards.get(name, ()) for name in stage.reads))
    if stage.per == "all":
        is_fresh = ledger.is_fresh(stage)
        return [job for job in all_jobs if not pending_inputs.isdisjoint(job) or not is_fresh(job)]
    fresh = ledger.fresh(stage, [shard for (shard,) in all_jobs]).tolist()
    return [job for job, done in zip(all_jobs, fresh, strict=True) if not done or job[0] in pending_inputs]


def describe_change(old: Any, new: Any) -> str:
    """Return how a setting changed; of lists in a text, separated by "; ", only what differs."""
    if not (isinstance(old, str) and isinstance(new, str) and "; " in old + new):
        return f"{old!r} → {new!r}"
    before, after = old.split("; "), new.split("; ")
    removed, added = [x for x in before if x not in after], [x for x in after if x not in before]
    return "; ".join([*(f"without {x}" for x in removed), *(f"with {x}" for x in added)]) or "another order"


def stale_reason(stage: Stage, ledger: Ledger, pending_shards: dict[str, set[int]]) -> Callable[[Job], str]:
    """Return a function that returns why a job of this stage must run, "" if it need not.

    pending_shards: table -> shards whose parts will be rebuilt.
    """
    entries, is_fresh = ledger.entries(stage.name()), ledger.is_fresh(stage)
    fields, models = stage.cache_fields(), stage.models()
    reads = [(name, pending_shards[name]) for name in sorted(stage.reads) if pending_shards.get(name)]

    @cache
    def changed(made_with: str) -> tuple[str, str]:
        """Return what differs in the settings, and in the models or the version."""
        old = json.loads(made_with)
        settings = [
            f"{n}: {describe_change(old['settings'].get(n), v)}"
            for n, v in fields.items()
            if old["settings"].get(n) != v
        ]
        version = f"code version {old['version']} → {stage.version}" if old["version"] != stage.version else ""
        return "setting " + ", ".join(settings) if settings else "", (
            "another model" if old["models"] != models else version
        )

    def reason(job: Job) -> str:
        if any(shard not in entries for shard in job):
            return "never made"
        setting, code = changed(entries[job[0]].made_with)
        follows = [name for name, pending in reads if any(shard in pending for shard in job)]
        if setting or follows or code:
            return setting or ("follows from " + ", ".join(follows) if follows else code)
        return "" if is_fresh(job) else "input changed"

    return reason


def failures(ledger: Ledger, names: Sequence[str]) -> list[tuple[str, int, str, str]]:
    """Return (stage, shard, unit, error message) of each failure; unit is "" for a job that failed as a whole.

    Opens the parts with failed units alone.
    """
    found = []
    store = ledger.store
    for name in names:
        files = ledger.names(name)
        for file in files:
            if file.endswith(".broken"):
                found.append((name, int(file.split(".")[0]), "", (store.get(name, file) or b"").decode()))
        for shard, path in store.damaged(name, files).items():
            found.append((name, shard, "", f"the part was damaged and moved to {path}; the next run rebuilds it"))
        for shard, footer in _with_failures(ledger, name):
            found += [(name, shard, unit, error) for unit, error in sorted(footer.failed.items())]
    return found


def failed_units(ledger: Ledger, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the failures as rows: stage, shard, unit ("" for a whole job), source (its public name, if known), error."""
    found = failures(ledger, names)
    manifest_rows = sources(ledger.store, [shard for _, shard, _, _ in found])
    rows = []
    for stage, shard, unit, error in found:
        source = manifest_rows.get((shard, unit)) or manifest_rows.get((shard, unit.rpartition("-")[0]))
        name = public_name(source.path) if source else None
        rows.append({"stage": stage, "shard": shard, "unit": unit, "source": name, "error": error})
    return rows


def _with_failures(ledger: Ledger, name: str) -> Iterator[tuple[int, Footer]]:
    """Yield the footers with failed units."""
    entries = ledger.entries(name)
    for shard in entries.column("shard")[entries.column("num_failed") > 0].tolist():
        if footer := ledger.store.footer(name, shard):
            yield shard, footer


def all_failed(ledger: Ledger, names: Sequence[str]) -> list[str]:
    """Return a message for each stage of which every unit failed, with the most frequent error. Rejects are not failures."""
    messages = []
    for name in names:
        failed, units = (int(ledger.entries(name).column(c).sum()) for c in ("num_failed", "num_inputs"))
        if failed and failed >= units:
            errors = Counter(error for _, footer in _with_failures(ledger, name) for error in footer.failed.values())
            most_frequent = f", most often with {errors.most_common(1)[0][0]}" if errors else ""
            messages.append(f"every unit of {name} failed ({failed} of {units}){most_frequent}")
    return messages


def sources(store: Store, shards: Iterable[int]) -> dict[tuple[int, str], Source]:
    """Return the manifest rows of these shards by (shard, video_id)."""
    return {(n, source.video_id): source for n in sorted(set(shards)) for source in store.read("manifest", n, Source)}


def is_replaced(source: Source) -> bool:
    """Return whether the content of a file has changed since it was listed. It is then a new video, added by the next run."""
    if source.path != public_name(source.path) or is_web(source.path):
        return False  # the next `a2data run` with its list downloads it again
    current = manifest.with_file_stat(replace(source, unreadable=""))
    if (current.bytes, current.modified_ns) == (source.bytes, source.modified_ns):
        return False
    return not source.video_id.startswith(manifest.with_content_id(current).video_id)
