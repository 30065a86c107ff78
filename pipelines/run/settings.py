"""Parsing of stage settings given as text on the command line."""

from typing import Any

TYPES: dict[Any, type] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    str: str,
    int: int,
    float: float,
    bool: bool,
}


def parse(value: str, kind: type, where: str) -> Any:
    """Parse a setting as a `kind`. Raises ValueError, beginning with `where`, for invalid text and for NaN."""
    if kind is bool:
        if value.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError(f"{where}: expected true or false, got {value!r}")
        return value.lower() in ("true", "1", "yes")
    try:
        number = kind(value)
    except ValueError:
        raise ValueError(f"{where}: expected {kind.__name__}, got {value!r}") from None
    if number != number:  # NaN compares false with any threshold
        raise ValueError(f"{where}: expected a number, got {value!r}")
    return number
