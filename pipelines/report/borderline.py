"""Pairs near a threshold, for the report: histograms of the values, and the nearest pairs on either side with pictures."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data.records import Reject, Rule
from a2data.store.tables import Store
from pipelines.report import contact_sheets
from pipelines.report.contact_sheets import CutOut
from stages.retrieve.rejections import failed_rules

RULES = (
    "similarity",
    "margin",
    "cohesion",
    "copy_risk",
    "picture_distance",
    "repeat_distance",
    "likeness",
    "mask_confidence",
)
MAX_PAIRS = 4  # pairs shown on each side of a threshold


class Pair(NamedTuple):
    """Two elements compared by a rule, and their pictures."""

    element_id: str
    source_element_id: str
    rule: Rule
    pictures: list[CutOut]  # of the element, then of its candidate; without those that are gone


class ThresholdCase(NamedTuple):
    """A rule and the pairs nearest to its threshold on either side, nearest first."""

    rule: str
    passed: list[Pair]
    failed: list[Pair]


@dataclass(frozen=True)
class _ReferenceColumns:  # columns of the table of references
    element_id: str
    kind: str
    source_shard: int
    source_element_id: str
    similarity: float
    copy_risk: float
    rules: list[Rule]


def histograms(store: Store) -> list[tuple[str, np.ndarray, list[float]]]:
    """Return (title, values, thresholds) of each histogram: similarity by kinds with the same threshold, and copy risk."""
    table = store.read_all("retrieve", _ReferenceColumns)
    row, rules = _rules(table)
    similarity_rules = rules.filter(pc.equal(rules["name"], "similarity"))
    similarity_rows = row[pc.equal(rules["name"], "similarity").to_numpy()]
    kinds, values = np.array(table["kind"].to_pylist(), object), table["similarity"].to_numpy()
    thresholds = np.full(len(table), -np.inf)
    thresholds[similarity_rows] = similarity_rules["low"].to_numpy()
    charts = []
    for low in sorted({*thresholds.tolist()}):
        selected = thresholds == low
        title = f"similarity of {', '.join(sorted({*kinds[selected]}))}"
        charts.append((title, values[selected], [low] if np.isfinite(low) else []))
    highs = rules.filter(pc.equal(rules["name"], "copy_risk"))["high"].unique().to_pylist()
    return [*(charts or [("similarity", values, [])]), ("copy risk", table["copy_risk"].to_numpy(), sorted(highs))]


def borderline_pairs(store: Store, tables: Sequence[str], rejects: Iterable[Reject]) -> list[ThresholdCase]:
    """Return the pairs near the threshold of each rule. rejects: those of retrieve, each with its most likely candidate.

    tables: those with elements.
    """
    table = store.read_all("retrieve", _ReferenceColumns)
    row, rules = _rules(table)
    passed, failed = {}, defaultdict(list)
    for name in RULES:
        selected = np.flatnonzero(pc.equal(rules["name"], name).to_numpy())
        value, low, high = (rules[column].to_numpy()[selected] for column in ("value", "low", "high"))
        with np.errstate(invalid="ignore"):  # inf - inf is NaN, which is sorted last
            distance = np.minimum(np.abs(value - low), np.abs(high - value))
        nearest = np.argsort(distance, kind="stable")[:MAX_PAIRS]
        passed[name] = [
            (int(row[selected[n]]), Rule(name, float(value[n]), float(low[n]), float(high[n])))
            for n in nearest
            if np.isfinite(low[n]) or np.isfinite(high[n])
        ]
    for reject in rejects:
        source, rules = failed_rules(reject)
        if rules and not rules[0].passed:
            failed[rules[0].name].append((reject.key, source, rules[0]))
    nearest_failed = {
        name: sorted(pairs, key=lambda p: (_excess(p[2]), p[0]))[:MAX_PAIRS] for name, pairs in failed.items()
    }
    ids = {name: [(*_ids(table, r), rule) for r, rule in pairs] for name, pairs in passed.items()}
    pictures = _pictures(
        store, tables, [pair[:2] for pairs in (*ids.values(), *nearest_failed.values()) for pair in pairs]
    )

    def with_pictures(pairs: list[tuple[str, str, Rule]]) -> list[Pair]:
        return [Pair(a, b, rule, [pictures[e] for e in (a, b) if e in pictures]) for a, b, rule in pairs]

    cases = [
        ThresholdCase(name, with_pictures(ids[name]), with_pictures(nearest_failed.get(name, []))) for name in RULES
    ]
    return [case for case in cases if case.passed or case.failed]


def _rules(table: pa.Table) -> tuple[np.ndarray, pa.Table]:
    """Return the row of each rule, and all rules of all rows as a table."""
    column = table["rules"].combine_chunks()
    row = pc.list_parent_indices(column).to_numpy()
    flat = pc.list_flatten(column)
    return row, pa.table({name: flat.field(name) for name in ("name", "value", "low", "high")})


def _ids(table: pa.Table, row: int) -> tuple[str, str]:
    return table["element_id"][row].as_py(), table["source_element_id"][row].as_py()


def _excess(rule: Rule) -> float:
    """Return the distance of a failed value from the allowed range."""
    return max(rule.low - rule.value, rule.value - rule.high)


def _pictures(store: Store, tables: Sequence[str], pairs: Iterable[tuple[str, str]]) -> dict[str, CutOut]:
    elements = {element for pair in pairs for element in pair}
    shard_of = contact_sheets.shards_by_clip(store, "segment") if elements else {}
    wanted = ((shard_of.get(element.split("/")[0], -1), element) for element in elements)
    return contact_sheets.cut_outs(store, tables, ((shard, element) for shard, element in wanted if shard >= 0))
