"""Settings of stages from the command line: every field is a flag, and what a run was told is remembered beside its tables."""

import argparse
import functools
import inspect
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from a2data.stage import Stage
from a2data.store.folder import Folder
from a2data.store.tables import Store
from a2data.store.url import is_url, refuse_password
from pipelines.corpus import calibrate

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

RUNNERS = {  # fields that are not the user's to set, and what to do instead
    ("pack", "out"): "name the folder of the shards with `a2data run --out`",
    ("pack", "made_by"): "the runner fills it in",
    ("retrieve", "calibrated"): "`a2data calibrate` finds it",
}


@dataclass
class Recipe:
    """What was asked of a work folder: `run.json` in it."""

    profile: str = "builtin"
    out: str = "shards"  # folder of the WebDataset shards, as seen from the work folder
    videos_per_shard: int = 8
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # stage -> field -> value

    @classmethod
    def of(cls, store: Store) -> "Recipe | None":
        """The recipe of a work folder; None where nothing was run. Raises ValueError for one that does not read."""
        data = store.get("run.json")
        try:
            return cls(**json.loads(data)) if data else None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{store.path('run.json')} is no recipe of this version: {error}") from error

    def save(self, store: Store) -> None:
        store.put(json.dumps(asdict(self), indent=1, sort_keys=True).encode(), "run.json")

    def folder(self, store: Store) -> Folder:
        """The folder of the shards."""
        elsewhere = is_url(refuse_password(self.out)) or os.path.isabs(self.out)
        return Folder(
            self.out if elsewhere else f"{(store.base if store.local else store.root).rstrip('/')}/{self.out}"
        )

    def set_folder(self, store: Store, out: str) -> None:
        """Remember the folder of the shards: relative to the work folder if it is inside, so that both can be moved together."""
        if "://" not in out:
            out = os.path.abspath(out)
            inside = store.local and out.startswith(f"{store.base}/")
            out = os.path.relpath(out, store.base) if inside else out
        self.out = out

    def apply(self, stages: Sequence[Stage], store: Store) -> list[Stage]:
        """The stages with these settings, for that store. Raises ValueError for a stage, field or model that there is not."""
        by_name = {stage.name(): stage for stage in stages}
        for name, values in self.settings.items():
            if name not in by_name:
                raise ValueError(f"there is no stage {name!r}; the stages are {', '.join(by_name)}")
            unknown = sorted(set(values) - {f.name for f in fields(by_name[name])})  # type: ignore[arg-type]
            if unknown:
                raise ValueError(f"run.json: {name} has no setting {', '.join(unknown)} (any more): remove it there")
            by_name[name] = replace(by_name[name], **values)  # type: ignore[type-var]
        made_by = "; ".join(f"{s.name()} {m}@{r}" for s in by_name.values() for m, r in _models(s))
        by_name["pack"] = replace(by_name["pack"], out=self.folder(store).root, made_by=made_by)  # type: ignore[call-arg]
        by_name["retrieve"] = replace(by_name["retrieve"], calibrated=calibrate.thresholds(store))  # type: ignore[call-arg]
        return list(by_name.values())

    def set(self, stages: Sequence[Stage], assignments: Sequence[str]) -> None:
        """Take in "stage.field=value" strings. Raises ValueError for one that does not fit."""
        types = {s.name(): {f.name: TYPES[f.type] for f in fields(s)} for s in stages}  # type: ignore[arg-type]
        for text in assignments:
            match = re.fullmatch(r"([\w-]+)\.(\w+)=(.*)", text, re.DOTALL)
            if not match:
                raise ValueError(f"--set {text!r}: write it as stage.field=value, such as detect.min_score=0.5")
            stage, name, value = match.groups()
            if stage not in types:
                raise ValueError(f"--set {text!r}: there is no stage {stage!r}; the stages are {', '.join(types)}")
            if (stage, name) in RUNNERS:
                raise ValueError(f"--set {text!r}: it is not for --set; {RUNNERS[stage, name]}")
            if name not in types[stage]:
                raise ValueError(f"--set {text!r}: {stage} has no setting {name!r}; it has {', '.join(types[stage])}")
            self.settings.setdefault(stage, {})[name] = parse(value, types[stage][name], text)


def _models(stage: Stage) -> list[tuple[str, str]]:
    try:
        return sorted(stage.models().items())
    except KeyError as error:  # from model_zoo.cards, with a sentence
        raise ValueError(f"{stage.name()}: {error.args[0]}") from error


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


def add_flags(command: argparse.ArgumentParser, stage: Stage) -> None:
    """One flag for each field, explained by the comment behind it. A flag that is not given leaves the recipe's value."""
    said = notes(stage)
    for f in fields(stage):  # type: ignore[arg-type]
        flag, kind = "--" + f.name.replace("_", "-"), TYPES[f.type]
        note = f"{said.get(f.name, '')} (default: {getattr(stage, f.name)!r})".strip().replace("%", "%%")
        if (stage.name(), f.name) in RUNNERS:
            continue
        if kind is bool:
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=note)
        else:
            command.add_argument(flag, type=typed(flag, kind), default=None, help=note, metavar=kind.__name__.upper())


def notes(stage: Stage) -> dict[str, str]:
    """The comment behind each field of a stage, whether its default stands on its line or, in brackets, on the next."""
    return _notes(type(stage))  # type: ignore[arg-type]  # a class is hashable


@functools.cache  # finding the source of a class parses its whole file
def _notes(kind: type) -> dict[str, str]:
    return dict(re.findall(r"^    (\w+): \w+ = (?:\(\n)?.*?  # (.*)$", inspect.getsource(kind), re.MULTILINE))


def typed(flag: str, kind: type) -> Callable[[str], Any]:
    """For argparse: what makes a value of a flag's text."""

    def read(value: str) -> Any:
        try:
            return parse(value, kind, flag)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read
