"""Settings of stages from the command line: every field is a flag, and what a run was told is remembered beside its tables."""

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
    """A setting's value from its text. Raises ValueError, naming where, for text of another type."""
    if kind is bool:
        if value.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError(f"{where}: {value!r} is neither true nor false")
        return value.lower() in ("true", "1", "yes")
    try:
        number = kind(value)
    except ValueError:
        raise ValueError(f"{where}: {value!r} is no {kind.__name__}") from None
    if number != number:  # nan: neither above nor below any threshold
        raise ValueError(f"{where}: {value!r} is no number to compare with")
    return number
