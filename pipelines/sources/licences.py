"""Licences of files: statements about the same bytes are compared, and two different ones are a conflict."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from a2data.records import Source


class Statement(NamedTuple):
    """A licence and where it is stated: "list.csv, row 3"."""

    license: str
    stated_in: str


def conflict(statements: Iterable[Statement]) -> str:
    """Return the different licences, each with the first place that states it; "" if they agree.

    >>> conflict([Statement("CC0", "a.csv, row 1"), Statement("CC0", "b.csv, row 1"), Statement("CC-BY", "b.csv, row 7")])
    "'CC0' (a.csv, row 1) and 'CC-BY' (b.csv, row 7)"
    """
    first: dict[str, str] = {}
    for license, stated_in in statements:
        if license:
            first.setdefault(license, stated_in)
    if len(first) < 2:
        return ""
    return " and ".join(f"{license!r} ({stated_in})" for license, stated_in in first.items())


def resolve_licences(
    identified: Sequence[Any], known: Sequence[Source], replace_known: bool = False
) -> tuple[list[Source], list[Source]]:
    """Return (identified rows, known rows that change), with the licence stated for their bytes, or the conflict.

    identified: for each location, its `row` with the id of its bytes, and the `statements` of the inputs about it. A licence that
    is stated for one of several files with the same bytes applies to all. replace_known: ignore the licences of known rows.
    """
    groups: dict[str, list[Any]] = {}
    for source in identified:
        groups.setdefault(_content_id(source.row.video_id), []).append(source)
    known_by_id: dict[str, list[Source]] = {}
    for row in known:
        if _content_id(row.video_id) in groups:
            known_by_id.setdefault(_content_id(row.video_id), []).append(row)
    new: list[Source] = []
    amended: list[Source] = []
    for content_id, group in groups.items():
        statements = [statement for source in group for statement in source.statements]
        override = replace_known and bool(statements)
        old = known_by_id.get(content_id, [])
        if not override:
            statements = [Statement(row.license, f"the work folder, of {row.path}") for row in old] + statements
        # a conflict persists, with its original description
        disagreement = next(
            (row.license_conflict for row in old if row.license_conflict and not override), conflict(statements)
        )
        license = next((s.license for s in statements if s.license), "")
        # known second copies are rejected anyway
        amended += [
            row for o in old if override or not o.duplicate_of if (row := _with_licence(o, disagreement, license)) != o
        ]
        new += [_with_licence(source.row, disagreement, license) for source in group]
    return new, amended


def _with_licence(row: Source, disagreement: str, stated: str) -> Source:
    return replace(row, license_conflict=disagreement, license=row.license if disagreement else stated)


def _content_id(video_id: str) -> str:
    return video_id.partition("-dup-")[0]
