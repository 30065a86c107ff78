"""Outputs of a run beside the tables: index and manifest of the shards, and the report. Rewritten only when needed."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from a2data.dataset import card, croissant, energon
from a2data.dataset import writer as tars
from a2data.records import Packed
from a2data.stage import Stage
from a2data.store.folder import Folder
from a2data.store.ledger import Ledger
from stages.pack.splits import parse_fractions
from stages.pack.stage import Pack


class ShrinkError(Exception):
    """Publishing would lose more than half of the samples that are published."""


def tables_digest(ledger: Ledger) -> str:
    """Return a digest of the rows of the table `pack`; "" if it does not exist."""
    digests = ledger.entries("pack").rows["digest"].to_pylist()
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16] if digests else ""


def write_index(
    ledger: Ledger,
    out: Folder,
    profile: str,
    stages: Sequence[Stage],
    owner: dict[str, str] | None = None,
    min_samples: int = 0,
    data: bytes | None = None,
) -> dict[str, Any]:
    """Write index.parquet and manifest.json for the tars in `out`, unless they already describe these tables.

    owner: the work folder that must own `out`. min_samples: the minimum number of samples to publish. data: the bytes of
    index.parquet, if they are known. Returns the manifest. Raises ShrinkError, before anything is replaced or removed, if there
    are fewer samples.
    """
    store = ledger.store
    about = {
        "profile": profile,
        "stages": {stage.name(): _about(stage) for stage in stages},
        "tables": tables_digest(ledger) or hashlib.sha256(b"").hexdigest()[:16],
    }
    published = tars.manifest(out)
    tars.check_owner(out, published, owner or published.get("owner"))
    if published.get("about") == about and _is_indexed(data or out.get("index.parquet"), published):
        tars.remove_replaced(out)
        return published
    rows = [row for shard in store.shards("pack") for row in store.read("pack", shard, Packed)]
    if len(rows) < min_samples:
        raise ShrinkError(
            f"only {len(rows)} triplets would remain in {out.root}, fewer than half of those published: nothing was published or "
            f"removed; see `a2data status {store.root}`, or publish with `a2data run --work {store.root} --allow-shrink`"
        )
    manifest = tars.finish(out, rows, about, owner)
    if rows:
        card.write(out, manifest, rows[0].members)
        croissant.write(out, manifest)
        if any(stage.energon for stage in stages if isinstance(stage, Pack)):
            energon.write(out, rows)
    return manifest


def published_clip_ids(data: bytes | None) -> list[str]:
    """Return the clip ids of the samples in an index, the bytes of index.parquet; [] if it is missing or cannot be read."""
    try:
        if not data:
            return []
        # pq.read_table would import pyarrow.dataset and pandas
        table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(["clip_id"])
        return table.column(0).to_pylist()
    except (pa.ArrowInvalid, OSError):
        return []


def _is_indexed(data: bytes | None, manifest: dict[str, Any]) -> bool:
    """Return whether an index is the one that the manifest lists. A run may be killed between writing the two."""
    if data is None:
        return False
    recorded = manifest.get("index")  # absent from manifests written before 2026-12
    return recorded is None or recorded["sha256"] == hashlib.sha256(data).hexdigest()


def describe_splits(manifest: dict[str, Any]) -> str:
    """Describe each split of a manifest in a line; add a line if one component exceeds a requested split fraction."""
    lines = []
    for name, about in manifest.get("splits", {}).items():
        fraction, largest = f"{about['share']:.1%}", f"{about['largest_component']:.1%}"
        lines.append(
            f"{name}: {about['samples']} triplets, {fraction}, in {about['components']} components, the largest {largest}"
        )
    requested = parse_fractions(
        manifest.get("about", {}).get("stages", {}).get("pack", {}).get("settings", {}).get("split", "")
    )
    components = {name: about["largest_component"] for name, about in manifest.get("splits", {}).items()}
    for name, share in requested.items():
        if max(components.values(), default=0) > share:
            split = max(components, key=components.__getitem__)
            lines.append(
                f"{name}: requested {share:.1%}, but one component, in {split}, holds {components[split]:.1%}: its videos share "
                "identities and cannot be split"
            )
    return "".join(f"{line}\n" for line in lines)


def _about(stage: Stage) -> dict[str, Any]:
    settings = {f.name: _finite(getattr(stage, f.name)) for f in fields(stage) if f.name != "out"}  # type: ignore[arg-type]
    return {"version": stage.version, "settings": settings, "models": stage.models()}


def _finite(value: Any) -> Any:
    """Return a non-finite float as a string, since JSON cannot represent it."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
