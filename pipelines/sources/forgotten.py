"""Record of deleted sources and identities, which are never listed again."""

import json
import sys
from collections.abc import Iterable
from typing import Any

from a2data.records import Source
from a2data.store.tables import Store

FILE = "forgotten.jsonl"


def read(store: Store) -> list[dict[str, Any]]:
    """Return the lines of forgotten.jsonl."""
    return [json.loads(line) for line in (store.get(FILE) or b"").decode().splitlines()]


def without_forgotten(store: Store, sources: Iterable[Source]) -> list[Source]:
    """Return new rows for the manifest without those whose bytes were forgotten, which are printed."""
    deleted_ids = {video_id.partition("-dup-")[0] for line in read(store) for video_id in line["videos"]}
    remaining = []
    for source in sources:
        if source.video_id.partition("-dup-")[0] in deleted_ids:
            print(f"skipped {source.path}: it was deleted by `a2data forget`, see {store.path(FILE)}", file=sys.stderr)
        else:
            remaining.append(source)
    return remaining
