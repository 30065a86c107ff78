"""Validation of file names from data (shards, indexes, tables, lists) before they become part of a path."""

import unicodedata

MAX_BYTES = 255  # of one name, in UTF-8: the limit of ext4, XFS, APFS and NTFS
SHOWN_CHARACTERS = 80  # of a rejected name in the error
# control characters (NUL and newlines among them), surrogates, and Unicode's line and paragraph separators
FORBIDDEN = {"Cc", "Cs", "Zl", "Zp"}


def safe_name(name: str, origin: str) -> str:
    """Return `name` unchanged if it is a plain file name inside a folder.

    origin: where the name is from, for the error message: a shard, a table, a line. Raises ValueError for a name that is empty,
    begins with a dot, contains a slash, backslash or control character, or is longer than MAX_BYTES in UTF-8.
    """
    if problem := _problem(name):
        raise ValueError(f"{origin}: {_short(name)} cannot be used as a file name: it {problem}")
    return name


def safe_path(path: str, origin: str) -> str:
    """Return `path` unchanged if it is relative and every component is a safe name.

    Raises ValueError otherwise.
    """
    for part in path.split("/"):
        if problem := _problem(part):
            raise ValueError(f"{origin}: {_short(path)} is not a path inside its folder: {_short(part)} {problem}")
    return path


def _problem(name: str) -> str:
    """Return why a text is not a safe file name; "" if it is one."""
    if not name:
        return "is empty"
    if name.startswith("."):
        return "begins with a dot"
    if "/" in name or "\\" in name:
        return "contains a path separator"
    is_printable = name.isascii() and name.isprintable()
    if not is_printable and any(unicodedata.category(character) in FORBIDDEN for character in name):
        return "contains a control character"
    return f"is longer than {MAX_BYTES} bytes" if len(name.encode()) > MAX_BYTES else ""


def _short(name: str) -> str:
    return repr(name if len(name) <= SHOWN_CHARACTERS else name[:SHOWN_CHARACTERS] + "…")
