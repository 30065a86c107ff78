"""The command `a2data export`: shards to the data that another trainer reads."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from a2data.dataset import writer
from a2data.store.folder import Folder
from a2data.store.tables import Store
from pipelines.cli import session
from pipelines.cli.flags import add_settings, given_values
from pipelines.export.stage import STATE, Export, write_sample_list
from pipelines.export.target import Exported
from pipelines.export.targets import TARGETS
from pipelines.run.lock import exclusive_lock

NOT_SETTINGS = ("target", "shards", "out")
MAX_PRINTED = 5  # problems and losses that are printed; export.json has all


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of `a2data export`."""
    command.add_argument("shards", metavar="SHARDS", help="folder (or URL) of the shards")
    command.add_argument("--to", required=True, choices=sorted(TARGETS), help="trainer or format, see docs/export.md")
    command.add_argument("--out", required=True, help="folder of the export; finished tars in it are skipped")
    command.add_argument(
        "--check",
        action="store_true",
        help="afterwards run the trainer's arithmetic over every row, and print how many it skips",
    )
    add_settings(command.add_argument_group("settings"), Export, exclude=NOT_SETTINGS)
    session.add_flags(command.add_argument_group("execution"))  # type: ignore[arg-type]
    command.set_defaults(func=export)


def export(args: argparse.Namespace) -> int:
    """Export the samples, write the metadata and check it. Returns 1 if a sample failed or the trainer would skip a row."""
    shards, out = Folder(args.shards), Folder(args.out)
    # absolute for local folders, since workers may have another working directory
    stage = Export(
        args.to, _absolute_path(shards), _absolute_path(out), **given_values(args, Export, exclude=NOT_SETTINGS)
    )
    stage.target_and_clock()  # a clock that the target refuses is an error of the command, not of each sample
    rows = writer.rows(shards)
    store = Store(f"{args.out.rstrip('/')}/{STATE}")
    with exclusive_lock(store):
        _claim(store, args.to)
        tars = write_sample_list(store, out, rows, stage)
        summary = session.run_stages(args, [stage], store, list(tars), tars)
        exported, rejected, failed = _results(store, stage, list(tars))
        for (_, (shard, *_)), error in summary.failed_jobs.items():
            failed.setdefault(tars[shard], error)
        files = TARGETS[args.to].write(out, exported) if exported else []
        _record(out, stage, exported, rejected, failed)
    return _report(args, out, files, (exported, rejected, failed))


def _absolute_path(folder: Folder) -> str:
    return folder.base if folder.local else folder.root


def _claim(store: Store, target: str) -> None:
    """Record the target of a folder. Raises ValueError if another one was exported to it, whose files would be mixed in."""
    data = store.get("target.json")
    if data and (other := json.loads(data)["target"]) != target:
        raise ValueError(f"{store.root} belongs to an export to {other}: give another --out for {target}")
    store.put(json.dumps({"target": target}).encode(), "target.json")


Results = tuple[list[Exported], dict[str, str], dict[str, str]]


def _results(store: Store, stage: Export, shards: Sequence[int]) -> Results:
    """Return the exported samples in order, and clip_id -> reason of those outside the clock and of those that failed."""
    exported: list[Exported] = []
    rejected: dict[str, str] = {}
    failed: dict[str, str] = {}
    for shard in shards:
        footer = store.footer(stage.name(), shard)
        if footer is None or not store.is_up_to_date(stage, (shard,)):
            continue
        exported += store.read(stage.name(), shard, Exported)
        rejected |= {reject.key: reject.detail for reject in footer.rejected}
        failed |= footer.failed
    return sorted(exported, key=lambda row: row.clip_id), rejected, failed


def _record(
    out: Folder, stage: Export, exported: Sequence[Exported], rejected: dict[str, str], failed: dict[str, str]
) -> None:
    """Write export.json: settings, counts, and what was lost from every sample."""
    settings = {name: value for name, value in asdict(stage).items() if name not in (*NOT_SETTINGS, "work")}
    record = {
        "target": stage.target,
        "settings": settings,
        "samples": len(exported),
        "frames": sum(row.frames for row in exported),
        "with_sound": sum(row.sound for row in exported),
        "losses": {row.clip_id: row.losses for row in exported if row.losses},
        "outside_the_clock": dict(sorted(rejected.items())),
        "failed": dict(sorted(failed.items())),
    }
    out.put((json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode(), "export.json")


def _report(args: argparse.Namespace, out: Folder, files: Sequence[str], results: Results) -> int:
    exported, rejected, failed = results
    if note := TARGETS[args.to].note:
        print(note)
    for clip_id, reason in list(rejected.items())[:MAX_PRINTED]:
        print(f"{clip_id} left out: {reason}")
    if rejected:
        print("--min-frames takes shorter clips; the setting segment.max_frames, at the packing, makes longer ones")
    losses = [(row.clip_id, reason) for row in exported for reason in row.losses]
    for clip_id, reason in losses[:MAX_PRINTED]:
        print(f"{clip_id}: {reason}")
    counts = Counter(row.count for row in exported)
    print(
        f"{len(exported)} samples to {out.root} ({', '.join(files)}), {sum(row.sound for row in exported)} with sound, "
        f"{len(rejected)} left out, {len(failed)} failed, {len(losses)} losses: see export.json"
    )
    if exported:
        print("frames x samples: " + ", ".join(f"{frames} x {count}" for frames, count in sorted(counts.items())))
    skipped = _check(args.to, out) if args.check and exported else 0
    for clip_id, reason in failed.items():
        print(f"a2data: {clip_id}: {reason}", file=sys.stderr)
    return session.conclude(1 if failed or skipped else 0, [] if exported else ["no samples were exported"])


def _check(target: str, out: Folder) -> int:
    """Print what the trainer's arithmetic says. Returns the number of rows that it would skip."""
    result = TARGETS[target].check(out)
    for note in result.notes:
        print(note)
    for problem in result.skipped:
        print(f"{problem.row}: {problem.reason}")
    rows = len({problem.row for problem in result.skipped})
    print(f"check {target}: {result.rows} rows, skipped = {rows}")
    return rows
