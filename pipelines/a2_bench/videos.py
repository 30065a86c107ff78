"""The videos of a system, measured one after the other; what is done stays."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np

from a2data import video
from pipelines.a2_bench.cases import Case
from pipelines.a2_bench.measure import Expert, Row, row
from pipelines.a2_bench.score import Measured

VERSION = 1  # of what is measured; a higher one measures all videos again


def table(
    cases: Sequence[Case], folder: Path, asked: Sequence[Expert], out: Path, say: Callable[[str], None]
) -> tuple[dict[str, Row], list[Case]]:
    """Case -> metric -> what was found in <folder>/<case>.mp4; and the cases whose video is not there or cannot be decoded.

    Each case is noted in <out>/measured/ when it is done, and measured again where its video, its pictures or the models have
    changed. What is missing is said.
    """
    notes, found, gone = out / "measured", dict[str, Row](), list[Case]()
    notes.mkdir(parents=True, exist_ok=True)
    for case in cases:
        path, note = folder / f"{case.id}.mp4", notes / f"{case.id}.json"
        key = _key(case, path, asked)
        known = _noted(note, key)
        if known is None:
            frames, fps, missing = _decoded(path)
            known = row(case, frames, fps, asked), missing
            facts = {"key": key, "missing": missing, "row": {m: asdict(x) for m, x in known[0].items()}}
            scratch = note.with_suffix(".tmp")
            scratch.write_text(json.dumps(facts, allow_nan=False))
            os.replace(scratch, note)
        found[case.id], missing = known
        if missing:
            say(missing)
            gone.append(case)
    return found, gone


def _key(case: Case, path: Path, asked: Sequence[Expert]) -> str:
    files = [path, *(element.path for element in case.elements)]
    facts = [
        VERSION,
        [hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "" for file in files],
        [[e.role, e.label] for e in case.elements],
        [[e.metrics, e.made_by, e.reason] for e in asked],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _noted(note: Path, key: str) -> tuple[Row, str] | None:
    if not note.is_file():
        return None
    data: Mapping[str, Any] = json.loads(note.read_text())
    return ({m: Measured(**x) for m, x in data["row"].items()}, data["missing"]) if data["key"] == key else None


def _decoded(path: Path) -> tuple[np.ndarray | None, float, str]:
    """Frames, frames per second, and what is missing."""
    if not path.is_file():
        return None, 0.0, f"{path} is not there"
    try:
        return video.decode(path.read_bytes()), video.probe(str(path)).fps, ""
    except (av.error.FFmpegError, ValueError) as error:
        return None, 0.0, f"{path} cannot be decoded and counts as missing ({error})"
