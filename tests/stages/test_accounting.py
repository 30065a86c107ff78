"""Every video and every clip of a real run is accounted for by name in every stage: rows, a reject, a failure, or left out."""

from fractions import Fraction
from pathlib import Path

import av
import hostile_videos as hostile
import numpy as np
import pytest

from a2data.job import UNIT
from a2data.records import Source
from a2data.stage import Stage
from a2data.store.tables import Store
from pipelines.run.local import InProcessExecutor
from pipelines.run.schedule import run
from pipelines.sources import manifest
from pipelines.triplets import PROFILES, triplets
from stages.caption.stage import Caption
from stages.listen import Listen
from stages.pack.stage import Pack
from stages.score import Score
from stages.segment.stage import Segment
from stages.select import Select

PROMISING = {  # every unit leaves something: the others may find nothing in a clip
    "ingest": "video_id",
    "segment": "video_id",
    "logos": "clip_id",
    "score": "clip_id",
    "listen": "clip_id",
    "select": "clip_id",
    "background": "clip_id",
    "caption": "clip_id",
    "retrieve": "element_id",
    "curate": "clip_id",
    "pack": "clip_id",
}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_stages_that_decide_about_units_account_for_each(profile):
    assert {s.name(): s.accounts_for for s in triplets(profile) if s.accounts_for} == PROMISING
    for stage in triplets(profile):
        if stage.accounts_for and stage.per in UNIT:
            assert stage.accounts_for == UNIT[stage.per]


def films(folder: Path) -> dict[str, str]:
    """Videos as they are found, by name, each with what is to become of it in ingest or segment."""
    grey = np.full((240, 320, 3), 128, np.uint8)
    hostile.write(folder / "plain.mp4")
    hostile.write(folder / "plain too.mp4", count=50)
    for name, shade in (("black", 0), ("white", 255)):
        hostile.write(folder / f"{name}.mp4", frame=np.full((240, 320, 3), shade, np.uint8))
    hostile.write(folder / "grey.mp4", frame=grey)
    hostile.write(folder / "one.mp4", count=1)
    hostile.write(folder / "tiny.mp4", size=(32, 32))
    hostile.write(folder / "vfr.mkv", times=[n + n // 3 for n in range(40)])
    hostile.write(folder / "still.mkv", count=40, times=[*range(20), *range(18_000, 18_020)])
    hostile.with_pixel_aspect(hostile.write(folder / "wide.mp4", pixel_aspect=Fraction(2)), 400, 1)
    hostile.with_sample_count(hostile.write(folder / "index.mp4"), 80_000_000)
    (folder / "text.mp4").write_text("dear diary, " * 500)
    (folder / "the same.mp4").write_bytes((folder / "plain.mp4").read_bytes())
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    flashing(folder / "flashing.mp4")
    return {
        "black.mp4": "no shot",
        "white.mp4": "no shot",
        "one.mp4": "too short",
        "tiny.mp4": "too small",
        "wide.mp4": "pixel aspect",
        "index.mp4": "failed",
        "text.mp4": "failed",
        "sound.mp4": "failed",
        "flashing.mp4": "no shot",
        "the same.mp4": "duplicate",
    }


def flashing(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for n in range(40):
            shade = np.full((240, 320, 3), 255 * (n % 2), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        container.mux(stream.encode(None))


def unaccounted(store: Store, stage: Stage, shard: int) -> set[str]:
    """Units of the stage's first table of which its part says nothing."""
    first = next(iter(stage.reads))
    before, after = store.footer(first, shard), store.footer(stage.name(), shard)
    column = UNIT["video" if stage.per == "video" else "clip"]
    asked = {*store.values(first, shard, column)}
    told = {*after.failed, *after.skipped, *(r.key.split("/")[0] for r in after.rejected)}
    told |= {*store.values(stage.name(), shard, column)}
    lost = {unit for unit in before.missing if unit not in after.missing}  # what failed before is still named
    lost |= {unit for unit in asked - told if unit.rpartition("-")[0] not in after.missing}
    if stage.per in UNIT:  # the count of the units agrees with their names
        assert after.num_inputs == len(asked - {*after.skipped})
    return lost if stage.accounts_for else {unit for unit in before.missing if unit not in after.missing}


@pytest.mark.parametrize("last", ["select", pytest.param("pack", marks=pytest.mark.slow)])
def test_every_video_and_clip_is_accounted_for_from_the_manifest_on(tmp_path, last):
    (tmp_path / "films").mkdir()
    fates = films(tmp_path / "films")
    sources = manifest.sources([str(tmp_path / "films")])
    store = Store(tmp_path / "work")
    for shard, first in enumerate(range(0, len(sources), 8)):
        store.write("manifest", shard, Source, sources[first : first + 8])
    ours = [
        Segment(shot_model=""),
        Score(text_model=""),
        Listen(vad_model=""),
        Select(max_text=float("inf"), max_burnt_text=float("inf")),
        Caption(),
        Pack(out=str(tmp_path / "shards"), required_roles="human|object|background"),
    ]
    stages = [next((mine for mine in ours if mine.name() == s.name()), s) for s in triplets()]
    stages = stages[: [stage.name() for stage in stages].index(last) + 1]

    summary = run(stages, store, store.shards("manifest"), InProcessExecutor(store))

    assert summary.failed_jobs == {}
    names = {source.video_id: Path(source.path).name for source in sources}
    assert sorted(names.values()) == sorted(path.name for path in (tmp_path / "films").iterdir())
    told = {}
    for name, shard in ((name, shard) for name in ("ingest", "segment") for shard in store.shards("manifest")):
        footer = store.footer(name, shard)
        told |= {names[unit]: "failed" for unit in footer.failed}
        told |= {names[r.key]: r.reason for r in footer.rejected if r.key in names}
    assert told == fates
    for stage in stages:
        for shard in store.shards("manifest"):
            assert unaccounted(store, stage, shard) == set(), stage.name()
