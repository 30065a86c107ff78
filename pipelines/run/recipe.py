"""The recipe of a work folder, run.json (profile, settings and folder of the shards), and its calibrated thresholds."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from a2data.records import Element
from a2data.stage import Stage
from a2data.store.folder import Folder
from a2data.store.tables import Store
from a2data.store.url import is_url, reject_password
from pipelines.run.settings import parse, value_type
from stages.retrieve.stage import Retrieve

FILE = "thresholds.json"


def thresholds(store: Store) -> str:
    """Return the calibrated thresholds of a work folder as JSON, for Retrieve.calibrated; "" if there are none.

    Raises ValueError if the file cannot be read.
    """
    data = store.get(FILE)
    if data is None:
        return ""
    try:
        return json.dumps(json.loads(data)["thresholds"], sort_keys=True)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{store.path(FILE)} cannot be read ({error}): delete it or run `a2data calibrate` again"
        ) from error


# fields that --set does not accept, and what to do instead
RUNNER_OWNED = {
    ("pack", "out"): "set the folder of the shards with `a2data run --out`",
    ("pack", "made_by"): "the runner sets it",
    ("retrieve", "calibrated"): "`a2data calibrate` sets it",
}


@dataclass
class Recipe:
    """Profile, output folder and settings of a work folder, saved in its `run.json`."""

    profile: str = "builtin"
    out: str = "shards"  # folder of the WebDataset shards, relative to the work folder
    videos_per_shard: int = 8
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # stage -> field -> value

    @classmethod
    def of(cls, store: Store) -> "Recipe | None":
        """Return the recipe of a work folder; None if it was never run. Raises ValueError if it cannot be read."""
        data = store.get("run.json")
        try:
            return cls(**json.loads(data)) if data else None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{store.path('run.json')} is not a recipe of this version: {error}") from error

    @classmethod
    def existing(cls, store: Store) -> "Recipe":
        """Return the recipe of a work folder. Raises ValueError if it was never run or cannot be read."""
        recipe = cls.of(store)
        if recipe is None:
            raise ValueError(
                f"{store.root} is not a work folder: create one with `a2data run VIDEOS --work {store.root}`"
            )
        return recipe

    def save(self, store: Store) -> None:
        store.put(json.dumps(asdict(self), indent=1, sort_keys=True).encode(), "run.json")

    def folder(self, store: Store) -> Folder:
        """Return the folder of the shards."""
        is_absolute = is_url(reject_password(self.out)) or os.path.isabs(self.out)
        return Folder(
            self.out if is_absolute else f"{(store.base if store.local else store.root).rstrip('/')}/{self.out}"
        )

    def set_folder(self, store: Store, out: str) -> None:
        """Set the folder of the shards, relative to the work folder if it is inside, so that both can be moved together."""
        if "://" not in out:
            out = os.path.abspath(out)
            inside = store.local and out.startswith(f"{store.base}/")
            out = os.path.relpath(out, store.base) if inside else out
        self.out = out

    def configured(self, stages: Sequence[Stage]) -> list[Stage]:
        """Return the stages with these settings. Raises ValueError for an unknown stage or field."""
        by_name = {stage.name(): stage for stage in stages}
        for name, values in self.settings.items():
            if name not in by_name:
                raise ValueError(f"unknown stage {name!r}; the stages are {', '.join(by_name)}")
            unknown = sorted(set(values) - {f.name for f in fields(by_name[name])})  # type: ignore[arg-type]
            if unknown:
                raise ValueError(f"run.json: {name} does not have the setting {', '.join(unknown)}: remove it there")
            by_name[name] = replace(by_name[name], **values)  # type: ignore[type-var]
        return list(by_name.values())

    def apply(self, stages: Sequence[Stage], store: Store) -> list[Stage]:
        """Return the stages with these settings for a store. Raises ValueError for an unknown stage, field or model."""
        by_name = {stage.name(): stage for stage in self.configured(stages)}
        made_by = "; ".join(f"{s.name()} {m}@{r}" for s in by_name.values() for m, r in _models(s))
        by_name["pack"] = replace(by_name["pack"], out=self.folder(store).root, made_by=made_by)  # type: ignore[call-arg]
        if isinstance(by_name["retrieve"], Retrieve):  # that of an imported set takes the pairs as they are
            by_name["retrieve"] = replace(by_name["retrieve"], calibrated=thresholds(store))
        return list(by_name.values())

    def set(self, stages: Sequence[Stage], assignments: Sequence[str]) -> None:
        """Apply "stage.field=value" strings. Raises ValueError for an invalid one."""
        for text in assignments:
            match = re.fullmatch(r"([\w-]+)\.(\w+)=(.*)", text, re.DOTALL)
            if not match:
                raise ValueError(f"--set {text!r}: write it as stage.field=value, such as detect.confidence=0.5")
            stage, name, value = match.groups()
            hint = _setting_type(stages, stage, name, f"--set {text!r}")
            self.settings.setdefault(stage, {})[name] = parse(value, hint, text)

    def update(self, stages: Sequence[Stage], settings: Mapping[str, Mapping[str, Any]], path: str) -> None:
        """Apply {stage: {field: value}} of the settings file at `path`. Raises ValueError, with the path, for an invalid one."""
        for stage, values in settings.items():
            for name, value in values.items():
                context = f"{path}: {name} = {value!r} in [{stage}]"
                hint = _setting_type(stages, stage, name, context)
                expected = value_type(hint)
                if type(value) is not expected and not (expected is float and type(value) is int):
                    raise ValueError(f"{context}: expected {expected.__name__}, got {type(value).__name__}")
                self.settings.setdefault(stage, {})[name] = parse(str(value), hint, context)


def _setting_type(stages: Sequence[Stage], stage: str, name: str, context: str) -> Any:
    """Return the type of a setting. Raises ValueError, beginning with `context`, for one that cannot be set."""
    types = {s.name(): {f.name: f.type for f in fields(s)} for s in stages}  # type: ignore[arg-type]
    if stage not in types:
        raise ValueError(f"{context}: unknown stage {stage!r}; the stages are {', '.join(types)}")
    if (stage, name) in RUNNER_OWNED:
        raise ValueError(f"{context}: this field cannot be set here; {RUNNER_OWNED[stage, name]}")
    if name not in types[stage]:
        raise ValueError(f"{context}: {stage} does not have the setting {name!r}; it has {', '.join(types[stage])}")
    return types[stage][name]


def element_tables(stages: Sequence[Stage]) -> list[str]:
    """Return the tables with elements, in the order of their stages."""
    return [stage.name() for stage in stages if stage.writes is Element]


def _models(stage: Stage) -> list[tuple[str, str]]:
    try:
        return sorted(stage.models().items())
    except KeyError as error:  # from model_zoo.cards, with a message
        raise ValueError(f"{stage.name()}: {error.args[0]}") from error
