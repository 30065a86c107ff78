"""Where a worker writes, before each unit, which units it has in hand."""

import json
from collections.abc import Sequence

from a2data.stage import Stage
from a2data.store.tables import Part, Store


def progress_path(stages: Sequence[Stage], shard: int) -> tuple[str, str]:
    """Where a worker writes which units it has in hand: what killed it, if it is killed; how far it is, if not."""
    return stages[0].name(), f"{shard:05d}.doing"


def note_units(
    store: Store, stages: Sequence[Stage], shard: int, in_hand: Sequence[str], share: float, parts: Sequence[Part]
) -> None:
    about = {
        "units": list(in_hand),
        "share": share,  # of the job's units that are done, 0 to 1
        "done": max(p.footer.num_inputs for p in parts),
        "failed": sum(len(p.footer.failed) for p in parts),
        "rejected": sum(len(p.footer.rejected) for p in parts),
    }
    store.note(json.dumps(about), *progress_path(stages, shard))
