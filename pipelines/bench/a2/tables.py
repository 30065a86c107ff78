"""Tables of a benchmark run in a work folder: cases, videos and results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import av

from a2data.store.filename import safe_name
from a2data.store.ledger import Ledger
from a2data.store.tables import Store
from pipelines.bench.a2.cases import Case
from pipelines.bench.a2.profiles import Row, fill_missing
from pipelines.bench.a2.records import CaseRow, Sampled, Scored, read_fps, to_row
from pipelines.bench.a2.stages import Metrics
from pipelines.bench.a2.totals import Measured
from pipelines.run import status

VIDEOS = "videos"  # folder of a run's videos


def write_cases(store: Store, cases: Sequence[Case]) -> dict[str, int]:
    """Write the cases to the table "cases", one shard each, and return {case: shard}.

    A case keeps its shard and a new one gets the next, so that results of the other cases stay valid.
    """
    shard_of = {row.clip_id: shard for shard in store.shards("cases") for row in store.read("cases", shard, CaseRow)}
    next_shard = max(shard_of.values(), default=-1) + 1
    for number, case in enumerate(case for case in cases if case.id not in shard_of):
        shard_of[case.id] = next_shard + number
    for case in cases:
        store.write("cases", shard_of[case.id], CaseRow, [to_row(case)])
    return {case.id: shard_of[case.id] for case in cases}


def import_videos(store: Store, shard_of: Mapping[str, int], folder: Path) -> dict[str, str]:
    """Write the videos <case>.mp4 of a folder to the table "sample" and return {case: reason} of the missing ones."""
    missing = {}
    for case, shard in shard_of.items():
        path, rows = folder / safe_name(f"{case}.mp4", "id of a case"), []
        try:
            data = path.read_bytes()
            rows = [row := Sampled(case, read_fps(data), data)]
            _ = row.frames  # raises if the video cannot be decoded completely
        except FileNotFoundError:
            missing[case] = f"{path} does not exist"
        except (av.error.FFmpegError, ValueError) as error:
            rows, missing[case] = [], f"{path} cannot be decoded and counts as missing ({error})"
        store.write("sample", shard, Sampled, rows)
    return missing


def export_videos(store: Store, shard_of: Mapping[str, int], folder: Path) -> None:
    """Write the sampled videos to files <case>.mp4, for viewing and for a study. Identical files are not rewritten."""
    folder.mkdir(parents=True, exist_ok=True)
    for case, shard in shard_of.items():
        for row in store.read("sample", shard, Sampled) if shard in store.shards("sample") else ():
            path = folder / safe_name(f"{case}.mp4", "id of a case")
            if not path.is_file() or path.read_bytes() != row.video:
                path.write_bytes(row.video)


def result_table(
    store: Store, cases: Sequence[Case], shard_of: Mapping[str, int], stages: Sequence[Metrics]
) -> tuple[dict[str, Row], list[Case]]:
    """Return case -> metric -> result, and the cases without a video.

    A metric that failed on a video is skipped, with the error message: it counts neither as found nor as missing.
    """
    failed = {
        (name, shard): error for name, shard, _, error in status.failures(Ledger(store), [s.name() for s in stages])
    }
    sampled = set(store.shards("sample"))
    table, missing = dict[str, Row](), []
    for case in cases:
        shard, row = shard_of[case.id], dict[str, Measured]()
        for stage in stages:
            if error := failed.get((stage.name(), shard)):
                row |= {metric: Measured(skipped=f"it failed: {error}") for metric in stage.names()}
            elif store.is_up_to_date(stage, (shard,)):
                row |= {r.metric: _measured(r) for r in store.read(stage.name(), shard, Scored)}
            else:
                row |= {metric: Measured(skipped="the run ended before it was measured") for metric in stage.names()}
        table[case.id] = row
        if shard not in sampled or not list(store.values("sample", shard, "clip_id")):
            missing.append(case)
    fill_missing(table, missing)
    return table, missing


def _measured(row: Scored) -> Measured:
    return Measured(row.value if row.found else None, row.seen, row.of, row.skipped)


def measured_by(stages: Sequence[Metrics], table: Mapping[str, Row]) -> dict[str, str]:
    """Return {metric: cards that measured it, with their revisions} for the metrics that were measured."""
    measured = {metric for row in table.values() for metric, result in row.items() if not result.skipped}
    out: dict[str, str] = {}
    for stage in stages:
        cards = ", ".join(f"{name.partition(':')[0]}@{revision}" for name, revision in stage.models().items())
        out |= {metric: cards for metric in stage.names() if metric in measured}
    return out


def sampling_errors(store: Store, shard_of: Mapping[str, int], missing: Sequence[Case]) -> dict[str, str]:
    """Return {case: why its video could not be sampled}."""
    failed = {shard: error for _, shard, _, error in status.failures(Ledger(store), ["sample"])}
    return {
        case.id: f"no video of {case.id}: {failed.get(shard_of[case.id], 'it was not sampled')}" for case in missing
    }
