"""Accounting of the units of a stage per "shard" or "all" as rows, rejects and failures, so that none is lost silently."""

from collections.abc import Mapping, Sequence
from typing import Any

from a2data.records import Failure, Reject
from a2data.stage import Stage
from a2data.store.url import scrub


def sort(
    stage: Stage, made: Sequence[Any], accountable: Mapping[str, str]
) -> tuple[list[Any], list[Reject], dict[str, str]]:
    """Return the rows, the rejects, and the failures by clip.

    accountable: the values that the stage must account for, each with its clip. A clip with a value that has neither a row nor a
    reject is a failure, and its rows are dropped.
    """
    rows = [row for row in made if not isinstance(row, Reject | Failure)]
    rejected = [row for row in made if isinstance(row, Reject)]
    failed = {row.key: scrub(row.error) for row in made if isinstance(row, Failure)}
    if not stage.accounts_for:
        return rows, rejected, failed
    answered = {subject(stage, row) for row in (*rows, *rejected)}
    lost: dict[str, list[str]] = {}
    for value, clip in accountable.items():
        if value not in answered and clip not in failed:
            lost.setdefault(clip, []).append(value)
    for clip, values in lost.items():
        failed[clip] = f"LookupError: {stage.name()} yielded neither a row nor a reject for {', '.join(values)}"
    return (
        [row for row in rows if row.clip_id not in lost],
        [reject for reject in rejected if reject.key.split("/")[0] not in lost],
        failed,
    )


def subject(stage: Stage, made: Any) -> str:
    """Return the value of `accounts_for` of a row or a Reject."""
    if isinstance(made, Reject):
        return made.key.split("/")[0] if stage.accounts_for == "clip_id" else made.key
    return getattr(made, stage.accounts_for)


def count(stage: Stage, made: Sequence[Any]) -> int:
    """Return the number of units of rows and Rejects. Several rows may belong to one unit, such as references of an element."""
    return len({subject(stage, one) for one in made}) if stage.accounts_for else len(made)
