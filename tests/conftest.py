"""Shared fixtures. Real footage and weights are optional: tests that need them skip, and say so."""

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import model_zoo  # noqa: F401  before any test imports torchvision
from a2data.dataset import writer
from a2data.dataset.triplet import Location, Origin, ReferenceMeta, Triplet, TripletMeta, to_members
from a2data.media import video
from a2data.media.coco_rle import NO_MASK
from a2data.media.images import to_png
from a2data.records import Caption, Packed, Subject
from a2data.store.folder import Folder

CORPUS = Path(os.environ.get("A2DATA_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))

os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # on a machine with other work
# no deadline: how long a call takes says nothing on a machine with other work; the same examples for everybody
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that the workers of `make test` end together."""
    items.sort(key=lambda item: "pipelines" not in item.path.parts)


if importlib.util.find_spec("jaxtyping"):  # the shapes and dtypes that model_zoo states are checked in every test
    from jaxtyping import install_import_hook

    SHAPED = ["encoders", "references", "objective", "tiny"]
    install_import_hook([f"model_zoo.a2.{name}" for name in SHAPED], "beartype.beartype")


@pytest.fixture(scope="session", autouse=True)
def without_fsync() -> Iterator[None]:
    """Do not wait for the disk: no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def log_of_its_own() -> None:
    """What a test reads in the log does not depend on how loud a command was made in a test before it."""
    logging.getLogger("a2data").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real footage and weights, see CONTRIBUTING.md."""
    if not (CORPUS / "MANIFEST.json").exists():
        pytest.skip("no corpus of real footage: set A2DATA_CORPUS to its folder")
    return CORPUS


def facts(key: str, frames: int, height: int, width: int, roles: list[str]) -> TripletMeta:
    prompt = f"A person, {key}, in a kitchen."
    caption = Caption(key, prompt, [], "", "", "", "", "a kitchen", len(prompt) - 10, len(prompt) - 1, "", [])
    caption.subjects.append(Subject("Human", "", "", "", "", "", True, "A person", 0, 8))
    box = (0.0, 0.0, 8.0, 8.0)
    origin = Origin(
        "v", "v.mp4", "CC0", "", f"{key}-o", "e", "", "", [], 0, 0, 0.0, box, box, 8, 8, NO_MASK, 1, 1, "", ""
    )
    place = Location(0, 0, box, box, NO_MASK)
    names = ["bg" if role == "background" else f"ref{n}" for n, role in enumerate(roles)]
    given = [
        ReferenceMeta(
            name, role, "A person" if role == "human" else "", 0, 8, "e", 1, 0.9, 0.1, False, [], origin, place
        )
        for name, role in zip(names, roles, strict=True)
    ]
    numbers, times = list(range(frames)), [n / 15 for n in range(frames)]
    whole = (0.0, 0.0, float(width), float(height))
    return TripletMeta(
        *(key, "v", "v.mp4", "CC0", "", "", 0, frames, 15.0, width, height, whole),
        *(numbers, times, caption, given, [], []),
    )


def film(number: int, frames: int, height: int, width: int) -> bytes:
    """Frame n is as light as 40 + 16 n; a white square lies at (8, 16) to (16, 24)."""
    pictures = np.empty((frames, height, width, 3), np.uint8)
    pictures[:] = (40 + 16 * np.arange(frames))[:, None, None, None]
    pictures[:, 8:16, 16:24] = 255
    return video.encode(pictures, 15, crf=4)


@pytest.fixture(scope="session")
def pack() -> Callable[..., list[Packed]]:
    """(folder, number of samples) -> writes tars and index.parquet; every third sample is upright, every fourth has a place."""
    films = {shape: film(0, *shape) for shape in [(9, 32, 48), (9, 48, 32)]}
    ink = {role: np.full((8, 8, 3), 60 * n, np.uint8) for n, role in enumerate(["human", "object", "background"])}

    def write(folder: Path, count: int = 14, name: str = "clip", change: Callable | None = None) -> list[Packed]:
        samples, rows = {}, {}
        for n in range(count):
            key, shape = f"{name}-{n:03d}", (9, 48, 32) if n % 3 == 2 else (9, 32, 48)
            roles = ["human", *(["object"] if n % 2 else []), *(["background"] if n % 4 == 3 else [])]
            told = facts(key, *shape, roles)
            given = {g.name: to_png(ink[g.role]) for g in told.references}
            cut = {k: v for k, v in given.items() if k != "bg"}
            members = to_members(Triplet(told, films[shape], given, cut), slots=2)
            samples[key] = change(key, members) if change else members
            rows[key] = (*shape, 15.0, roles, "CC0", n / 100)
        placed = writer.write(samples.items(), Folder(folder), 0, 48_000)
        packed = [Packed(*place, *rows[place.key]) for place in placed]
        writer.finish(Folder(folder), packed, {})
        return packed

    return write
