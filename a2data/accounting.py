"""Accounting of the units of a stage per "shard" or "all" as rows, rejects and failures, so that none is lost silently."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from a2data.records import Failure, Reject
from a2data.stage import Stage
from a2data.store.url import scrub


def split_results(
    stage: Stage, rows: pa.Table, others: Sequence[Reject | Failure], accountable: Mapping[str, str]
) -> tuple[pa.Table, list[Reject], dict[str, str]]:
    """Return the rows, the rejects, and the failures by clip.

    accountable: the values that the stage must account for, each with its clip. A clip with a value that has neither a row nor a
    reject is a failure, and its rows are dropped.
    """
    rejected = [other for other in others if isinstance(other, Reject)]
    failed = {other.key: scrub(other.error) for other in others if isinstance(other, Failure)}
    if not stage.accounts_for:
        return rows, rejected, failed
    accounted = accounted_values(stage, rows, rejected)
    unaccounted: dict[str, list[str]] = {}
    for value, clip in accountable.items():
        if value not in accounted and clip not in failed:
            unaccounted.setdefault(clip, []).append(value)
    for clip, values in unaccounted.items():
        failed[clip] = f"LookupError: {stage.name()} yielded neither a row nor a reject for {', '.join(values)}"
    if unaccounted:
        rows = rows.filter(pc.invert(pc.is_in(rows["clip_id"], pa.array([*unaccounted], pa.string()))))
    return rows, [reject for reject in rejected if reject.key.split("/")[0] not in unaccounted], failed


def accounted_values(stage: Stage, rows: pa.Table, rejected: Sequence[Reject]) -> set[str]:
    """Return the values of `accounts_for` of rows and Rejects. Several rows, such as references, may belong to one."""
    keys = (one.key.split("/")[0] if stage.accounts_for == "clip_id" else one.key for one in rejected)
    return {*rows[stage.accounts_for].to_pylist(), *keys}


def count(stage: Stage, rows: pa.Table, rejected: Sequence[Reject]) -> int:
    """Return the number of units of rows and Rejects."""
    return len(accounted_values(stage, rows, rejected)) if stage.accounts_for else len(rows) + len(rejected)
