"""The rows that a benchmark of faults prints."""

import resource
from typing import NamedTuple


class Row(NamedTuple):
    """What was tried and what survived of one kind of fault."""

    kind: str
    tried: int
    survived: int
    detail: str = ""


def markdown(rows: list[Row]) -> str:
    """Return the rows as a Markdown table, with totals."""
    lines = ["| fault | tried | survived | detail |", "|---|---|---|---|"]
    lines += [f"| {row.kind} | {row.tried} | {row.survived} | {row.detail} |" for row in rows]
    tried, survived = sum(row.tried for row in rows), sum(row.survived for row in rows)
    return "\n".join([*lines, f"| all | {tried} | {survived} | |"])


def peak_children_mb() -> float:
    """Return the largest resident memory that any child process of this one had, in MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
