"""Progress notes: before each unit, a worker writes which units it has in flight."""

import json
from collections.abc import Sequence

from a2data.stage import Stage
from a2data.store.tables import Part, Store


def progress_path(stages: Sequence[Stage], shard: int) -> tuple[str, str]:
    """Return the path of a worker's progress note. It shows the progress, and after a crash the units that may have caused it."""
    return stages[0].name(), f"{shard:05d}.doing"


def note_units(
    store: Store, stages: Sequence[Stage], shard: int, in_flight: Sequence[str], fraction: float, parts: Sequence[Part]
) -> None:
    note = {
        "units": list(in_flight),
        "share": fraction,  # fraction of the job's units that are done, 0 to 1
        "done": max(p.footer.num_inputs for p in parts),
        "failed": sum(len(p.footer.failed) for p in parts),
        "rejected": sum(len(p.footer.rejected) for p in parts),
    }
    store.write_text(json.dumps(note), *progress_path(stages, shard))
