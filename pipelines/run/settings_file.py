"""Settings files in TOML: a profile, and a table per stage with the settings that --set takes.

profile = "small"

[detect]
confidence = 0.5
"""

import json
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from a2data.stage import Stage
from pipelines.run.recipe import RUNNER_OWNED
from pipelines.run.settings import field_docs
from pipelines.triplets import PROFILES


@dataclass(frozen=True)
class SettingsFile:
    """The content of a settings file."""

    path: str = ""
    profile: str | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # stage -> field -> value


def read(path: str) -> SettingsFile:
    """Return the content of a settings file. Raises OSError, and ValueError for what is not one, with the path."""
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    profile = tables.pop("profile", None)
    if profile is not None and profile not in PROFILES:
        raise ValueError(f"{path}: profile = {profile!r}: the profiles are {', '.join(sorted(PROFILES))}")
    for name, value in tables.items():
        if not isinstance(value, dict):
            raise ValueError(
                f"{path}: {name} = {value!r}: write settings in the table of their stage, such as [detect]"
            )
    return SettingsFile(path, profile, tables)


def dump(stages: Sequence[Stage], profile: str) -> str:
    """Return the settings of these stages as a settings file, each below its docstring as a comment."""
    lines = [f"profile = {_toml(profile)}"] if profile in PROFILES else []
    for stage in stages:
        docs = field_docs(type(stage))  # type: ignore[arg-type]
        lines += ["", *_comment((type(stage).__doc__ or "").strip().splitlines()[0]), f"[{stage.name()}]"]
        for f in fields(stage):  # type: ignore[arg-type]
            if (stage.name(), f.name) not in RUNNER_OWNED:
                lines += [*_comment(docs.get(f.name, "")), f"{f.name} = {_toml(getattr(stage, f.name))}"]
    return "\n".join(lines).strip() + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# ", break_long_words=False)


def _toml(value: str | int | float | bool) -> str:
    """Return a value as TOML; floats keep every digit."""
    if isinstance(value, str):
        # the escapes of JSON are among those of TOML, which escapes DEL too
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
