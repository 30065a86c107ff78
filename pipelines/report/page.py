"""HTML report of a corpus: its inputs, the outcome of each stage, and sample triplets.

The page is a single file that works offline and only runs its own script: its Content-Security-Policy has the hashes of its one
style sheet and one script. It does not contain a date, so equal tables give equal bytes.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data.records import Reject
from a2data.stage import Stage
from a2data.store.folder import Folder
from a2data.store.ledger import Ledger
from a2data.store.schema import schema
from a2data.store.tables import Footer, Store
from model_zoo.catalogue import CARDS
from pipelines.html.page import render
from pipelines.report import audit, borderline, captions, contact_sheets
from pipelines.run import status as planning
from pipelines.run import verify
from pipelines.run.recipe import element_tables

CLIP_ID = re.compile(r"-\d{8}(/|$)")  # suffix that a clip's id adds to the video's
BINS = 24  # bins of a histogram
MAX_FAILURES = 200  # failures shown; all are counted


class Table(NamedTuple):
    """A table of the report and the words for what it counts."""

    name: str
    unit: str  # "clip": what `num_inputs` of the footers counts
    units: str  # "clips"
    row_noun: str  # kind of rows: "elements"


class Slice(NamedTuple):
    """Units of a stage with the same outcome, shown as a segment of its bar."""

    outcome: str  # "done", "rejected", "failed" or "left out"
    reason: str  # of a rejection; "" otherwise
    units: int


@dataclass(frozen=True)
class StageReport:
    """Inputs and outcomes of a stage over all its shards."""

    name: str
    unit: str  # "clips"
    row_noun: str  # kind of rows: "elements"
    units: int  # including skipped ones
    rows: int
    rejected: dict[str, int]  # reason -> units rejected, most frequent first; a unit counts once, for its first reason
    rejected_within: dict[str, int]  # reason -> rejected parts of units: elements of a clip, shots of a video
    failed: int
    skipped: int
    seconds: float
    settings: dict[str, Any]
    models: dict[str, str]
    mixed: bool  # whether some shards were made with other settings or models than the first

    @property
    def slices(self) -> list[Slice]:
        """The bar of the funnel: all units by outcome. "Left out" units failed in an earlier stage."""
        rejected = [Slice("rejected", reason, count) for reason, count in self.rejected.items()]
        ends = [Slice("failed", "", self.failed), Slice("left out", "", self.skipped)]
        done = self.units - sum(piece.units for piece in (*rejected, *ends))
        return [piece for piece in (Slice("done", "", done), *rejected, *ends) if piece.units]


class Licence(NamedTuple):
    """A model of the recipe and the use that its licences allow."""

    model: str
    revision: str
    stages: list[str]
    code: str
    weights: str
    use: str  # see model_zoo.roles.Card; "unknown" for a model without a card


class Histogram(NamedTuple):
    """Distribution of the values of one measurement."""

    title: str
    low: float
    high: float
    counts: list[int]  # BINS of equal width from low to high
    median: float
    limits: list[float]  # thresholds for the values


@dataclass(frozen=True)
class _LengthColumns:  # columns of the tables that are read here
    license: str
    duration_s: float


@dataclass(frozen=True)
class _SampleColumns:
    shard: str  # of Packed: the name of a tar
    bytes: int


@dataclass(frozen=True)
class _PairColumns:
    clip_id: str
    element_id: str
    kind: str
    identity: int
    source_shard: int
    source_element_id: str
    similarity: float
    copy_risk: float


def write_report(
    store: Store,
    out: str | os.PathLike,
    recipe: Sequence[Stage],
    shards: Folder | None = None,
    num_triplets: int = 40,
    num_audit_pictures: int = 80,
) -> None:
    """Write the report of everything that the stages of a recipe left in the store to `out`, a path or URL, atomically.

    shards: folder of packed tars, to report their size and missing ones, if it is local. num_triplets: number of triplets shown,
    spread evenly over all. num_audit_pictures: number of audit pairs with pictures; the scores of all pairs are included. Raises
    FileNotFoundError if the store does not have any tables.
    """
    shards = shards if shards and shards.local else None
    report_tables = tables(recipe)
    footers: defaultdict[str, list[tuple[int, Footer]]] = defaultdict(list)
    footers |= {table.name: _footers(store, table.name) for table in report_tables}
    if not any(footers.values()):
        raise FileNotFoundError(f"{store.root} does not contain tables: run the pipeline first or give its work folder")
    stages = [_stage_report(table, footers[table.name]) for table in report_tables if footers[table.name]]
    elements = element_tables(recipe)
    pairs, lengths = (
        _read_with_shard(store, "retrieve", _PairColumns),
        _read_with_shard(store, "ingest", _LengthColumns),
    )
    clip_shards = contact_sheets.shards_by_clip(store, "pack") or contact_sheets.shards_by_clip(store, "retrieve")
    sampled_clips = contact_sheets.sample_evenly(
        [(shard, clip_id) for clip_id, shard in clip_shards.items()], num_triplets
    )
    rejects = [reject for _, footer in footers["retrieve"] for reject in footer.rejected]
    required_roles = next(
        (str(f.settings["required_roles"]) for _, f in footers["pack"] if "required_roles" in f.settings),
        "human|object|face",
    )
    failures = planning.failures(Ledger(store), [table.name for table in report_tables])
    page = render(
        "report/report.html",
        ["report/report.css"],
        ["report/report.js", "report/audit.js"],
        root=store.root,
        stages=stages,
        rows={stage.name: stage.rows for stage in stages},
        triplets=contact_sheets.triplets(store, elements, sampled_clips),
        triplet_count=len(clip_shards),
        seconds=pc.sum(lengths["duration_s"]).as_py() or 0.0,
        sources=_by_licence(lengths),
        kinds=_value_counts(pairs["kind"].to_pylist()),
        licences=_licences(stages),
        failures=failures[:MAX_FAILURES],
        failure_count=len(failures),
        examples=contact_sheets.rejects(store, elements, footers),
        identities=contact_sheets.identities(store, elements, pairs),
        histograms=[_histogram(*chart) for chart in borderline.histograms(store)],
        borders=borderline.borderline_pairs(store, elements, rejects),
        caption_flags=captions.flag_captions(store),
        audit=audit.audit(store, elements, rejects, required_roles, num_audit_pictures),
        tars=_tars(store, Path(shards.base) if shards else None),
        verified=verify.last_verification(shards) if shards else None,
        slowest=max((stage.seconds for stage in stages), default=0.0),
    )
    folder, name = os.path.split(os.fspath(out))
    if "://" not in folder:
        os.makedirs(folder or ".", exist_ok=True)
    Folder(folder or ".").put(page.encode(), name)


def tables(recipe: Sequence[Stage]) -> list[Table]:
    """Return the manifest and the table of each stage; a stage that reads the manifest counts files."""

    def table(stage: Stage) -> Table:
        unit = stage.unit()
        return Table(
            stage.name(), unit, "files" if next(iter(stage.reads)) == "manifest" else f"{unit}s", stage.row_noun
        )

    return [Table("manifest", "video", "files", "files"), *map(table, recipe)]


def _footers(store: Store, stage: str) -> list[tuple[int, Footer]]:
    footers = ((shard, store.footer(stage, shard)) for shard in store.shards(stage))
    return [(shard, footer) for shard, footer in footers if footer is not None]


def _read_with_shard(store: Store, stage: str, record: type) -> pa.Table:
    """Return some columns of a table over all shards, with an additional column "shard"."""
    tables = [
        (table := store.table(stage, shard, record)).append_column("shard", pa.array([shard] * len(table), pa.int64()))
        for shard in store.shards(stage)
    ]
    empty = schema(record).append(pa.field("shard", pa.int64())).empty_table()
    return pa.concat_tables(tables) if tables else empty


def _value_counts(values: list[str]) -> dict[str, int]:
    """Return the count of each value, most frequent first; ties in alphabetical order."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _stage_report(table: Table, footers: list[tuple[int, Footer]]) -> StageReport:
    parts = [footer for _, footer in footers]
    first = parts[0]
    rejected, rejected_parts = _reasons(table.unit, [reject for footer in parts for reject in footer.rejected])
    skipped = sum(len(footer.skipped) for footer in parts)
    return StageReport(
        name=table.name,
        unit=table.units,
        row_noun=table.row_noun,
        units=sum(footer.num_inputs for footer in parts) + skipped,
        rows=sum(footer.rows for footer in parts),
        rejected=_value_counts(rejected),
        rejected_within=_value_counts(rejected_parts),
        failed=sum(len(footer.failed) for footer in parts),
        skipped=skipped,
        seconds=sum(footer.seconds for footer in parts),
        settings=first.settings,
        models=first.models,
        mixed=any((f.settings, f.models, f.version) != (first.settings, first.models, first.version) for f in parts),
    )


def _reasons(unit: str, rejects: list[Reject]) -> tuple[list[str], list[str]]:
    """Return the reject reasons of whole units, the first for each, and those of parts of units."""
    if unit in ("element", "row"):
        return [reject.reason for reject in rejects], []
    first: dict[str, str] = {}
    for reject in rejects:
        if "/" not in reject.key if unit == "clip" else not CLIP_ID.search(reject.key):
            first.setdefault(reject.key, reject.reason)
    return list(first.values()), [reject.reason for reject in rejects if reject.key not in first]


def _by_licence(lengths: pa.Table) -> list[tuple[str, int, float]]:
    """Return (licence of the footage, number of videos, seconds), longest first."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for licence, duration_s in zip(lengths["license"].to_pylist(), lengths["duration_s"].to_pylist(), strict=True):
        seconds[licence].append(duration_s)
    found = [(licence, len(values), sum(values)) for licence, values in seconds.items()]
    return sorted(found, key=lambda row: (-row[2], row[0]))


def _licences(stages: list[StageReport]) -> list[Licence]:
    used: dict[tuple[str, str], list[str]] = defaultdict(list)
    for stage in stages:
        for model, revision in stage.models.items():
            used[model, revision].append(stage.name)
    licences = []
    for (model, revision), names in sorted(used.items()):
        card = CARDS.get(model.partition(":")[0])  # None for a toy's; the weights of NAME:PATH may be missing
        terms = (card.code_license, card.weights_license, card.use) if card else ("unknown", "unknown", "unknown")
        licences.append(Licence(model, revision, names, *terms))
    return licences


def _histogram(title: str, array: np.ndarray, limits: list[float]) -> Histogram:
    """Return the histogram over 0 to 1, extended down to the smallest value for negative cosines."""
    low = float(np.floor(min(0.0, array.min(initial=0.0)) * 10) / 10)
    counts = np.histogram(np.clip(array, low, 1.0), bins=BINS, range=(low, 1.0))[0].tolist()
    return Histogram(title, low, 1.0, counts, float(np.median(array)) if array.size else 0.0, limits)


def _tars(store: Store, folder: Path | None) -> dict[str, Any]:
    """Return the number of packed tars, their size in bytes, and the names of those missing in the folder."""
    tables = [store.table("pack", shard, _SampleColumns) for shard in store.shards("pack")]
    names = sorted({name for table in tables for name in table["shard"].to_pylist()})
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.tar")} if folder else {}
    return {
        "count": len(names),
        "bytes": sum(sizes.get(name, 0) for name in names)
        if folder
        else sum(pc.sum(t["bytes"]).as_py() or 0 for t in tables),
        "missing": [name for name in names if name not in sizes] if folder else [],
    }


def default_path(store: Store) -> str:
    """Return the path or URL of the report in a work folder."""
    return f"{store.root.rstrip('/')}/report.html"


def report(store: Store, out: Folder, recipe: Sequence[Stage], changed: bool, tables_ns: int) -> str:
    """Return the path or URL of the report in the work folder, rewritten if anything changed or it is older than the tables.

    At a URL it is rewritten only if anything changed, since its age would cost a listing.
    """
    path = default_path(store)
    if changed or (store.local and (not os.path.exists(path) or os.stat(path).st_mtime_ns < tables_ns)):
        write_report(store, path, recipe, out)
    return path
