"""Licences of files: statements about the same bytes are compared, and two different ones are a conflict."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from a2data.records import Source


class Statement(NamedTuple):
    """A licence and where it is stated: "list.csv, row 3"."""

    license: str
    where: str


def conflict(statements: Iterable[Statement]) -> str:
    """Return the different licences, each with the first place that states it; "" if they agree.

    >>> conflict([Statement("CC0", "a.csv, row 1"), Statement("CC0", "b.csv, row 1"), Statement("CC-BY", "b.csv, row 7")])
    "'CC0' (a.csv, row 1) and 'CC-BY' (b.csv, row 7)"
    """
    first: dict[str, str] = {}
    for license, where in statements:
        if license:
            first.setdefault(license, where)
    if len(first) < 2:
        return ""
    return " and ".join(f"{license!r} ({where})" for license, where in first.items())


def settle(
    found: Sequence[Any], known: Sequence[Source], replace_known: bool = False
) -> tuple[list[Source], list[Source]]:
    """Return (found rows, known rows that change), with the licence stated for their bytes, or the conflict.

    found: for each location, its `row` with the id of its bytes, and the `statements` of the inputs about it. A licence stated
    for one of several files with the same bytes applies to all of them. replace_known: ignore the licences of known rows.
    """
    groups: dict[str, list[Any]] = {}
    for one in found:
        groups.setdefault(_base(one.row.video_id), []).append(one)
    before: dict[str, list[Source]] = {}
    for row in known:
        if _base(row.video_id) in groups:
            before.setdefault(_base(row.video_id), []).append(row)
    new: list[Source] = []
    amended: list[Source] = []
    for base, group in groups.items():
        statements = [statement for one in group for statement in one.statements]
        afresh = replace_known and bool(statements)
        old = before.get(base, [])
        if not afresh:
            statements = [Statement(row.license, f"the work folder, of {row.path}") for row in old] + statements
        # a conflict persists, with its original description
        dispute = next(
            (row.license_conflict for row in old if row.license_conflict and not afresh), conflict(statements)
        )
        agreed = next((s.license for s in statements if s.license), "")
        # known second copies are rejected anyway
        amended += [row for o in old if afresh or not o.duplicate_of if (row := _with(o, dispute, agreed)) != o]
        new += [_with(one.row, dispute, agreed) for one in group]
    return new, amended


def _with(row: Source, dispute: str, agreed: str) -> Source:
    return replace(row, license_conflict=dispute, license=row.license if dispute else agreed)


def _base(video_id: str) -> str:
    return video_id.partition("-dup-")[0]
