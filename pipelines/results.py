"""What a run leaves for others beside the tables: index and manifest of the shards, and the report. Redone only when needed."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from a2data.folder import Folder
from a2data.records import Packed
from a2data.shards import finish
from a2data.splits import shares_of
from a2data.stage import Stage
from a2data.store import Store


def forget_lost_tars(store: Store, out: Folder) -> None:
    """Remove the parts of `pack` of which a tar is not in the folder `out` any more, so that it is packed again."""
    there = set(out.names())
    for shard in store.shards("pack"):
        if not there.issuperset(store.values("pack", shard, "shard")):
            store.remove("pack", f"{shard:05d}.parquet")


def index(store: Store, out: Folder, profile: str, stages: Sequence[Stage]) -> int:
    """Write index.parquet and manifest.json for the tars in `out`, unless they are those of these tables already.

    Returns the number of samples. To write them, every tar is read once, for its sha256.
    """
    shards = store.shards("pack")
    digests = [footer.digest for shard in shards if (footer := store.footer("pack", shard))]
    about = {
        "profile": profile,
        "stages": {stage.name(): _about(stage) for stage in stages},
        "tables": hashlib.sha256("".join(digests).encode()).hexdigest()[:16],
    }
    old = _manifest(out)
    if old.get("about") == about and "index.parquet" in out.names():
        return old["samples"]
    return finish(out, [row for shard in shards for row in store.read("pack", shard, Packed)], about)["samples"]


def splits(out: Folder) -> str:
    """What is in each split, a line each, from the manifest; and a line where one component is larger than a share asked for."""
    lines = []
    for name, about in _manifest(out).get("splits", {}).items():
        held, largest = f"{about['share']:.1%}", f"{about['largest_component']:.1%}"
        lines.append(
            f"{name}: {about['samples']} triplets, {held}, in {about['components']} components, the largest {largest}"
        )
    shares = shares_of(
        _manifest(out).get("about", {}).get("stages", {}).get("pack", {}).get("settings", {}).get("split", "")
    )
    components = {name: about["largest_component"] for name, about in _manifest(out).get("splits", {}).items()}
    for name, share in shares.items():
        if max(components.values(), default=0) > share:
            where = max(components, key=components.__getitem__)
            lines.append(
                f"{name} was to hold {share:.1%}, but one component, in {where}, holds {components[where]:.1%}: its videos share "
                "identities, so that they cannot be divided"
            )
    return "".join(f"{line}\n" for line in lines)


def _manifest(out: Folder) -> dict[str, Any]:
    try:
        return json.loads(out.get("manifest.json") or b"{}")
    except ValueError:
        return {}


def _about(stage: Stage) -> dict[str, Any]:
    settings = {f.name: _finite(getattr(stage, f.name)) for f in fields(stage) if f.name != "out"}  # type: ignore[arg-type]
    return {"version": stage.version, "settings": settings, "models": stage.models()}


def _finite(value: Any) -> Any:
    """JSON has no infinity: "inf", then."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def report(store: Store, out: Folder, changed: bool) -> Path:
    """The report in the work folder, written if anything changed or a table is newer than it is."""
    from pipelines.report import write_report

    path = Path(store.path("report.html"))
    tables = [file.stat().st_mtime_ns for file in Path(store.base).glob("*/*.parquet")]
    if changed or not path.exists() or path.stat().st_mtime_ns < max(tables, default=0):
        write_report(store, path, Path(out.base) if out.local else None)
    return path
