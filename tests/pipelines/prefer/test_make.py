"""Pairs from small shards, through the runner, into the encoder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import tiny_shards  # noqa: E402
from safetensors.torch import load  # noqa: E402

from a2data.dataset import pair as pairs  # noqa: E402
from a2data.dataset import writer  # noqa: E402
from a2data.media import video  # noqa: E402
from a2data.store.folder import Folder  # noqa: E402
from model_zoo.a2 import encoders, pipeline, references, tiny  # noqa: E402
from model_zoo.a2.regenerate import regenerate  # noqa: E402
from pipelines.encode import encode  # noqa: E402
from pipelines.prefer import make as making  # noqa: E402
from pipelines.prefer.stage import Prefer  # noqa: E402
from pipelines.train.start import tiny_training_data  # noqa: E402
from stages.encode.settings import Encoding  # noqa: E402
from stages.encode.tensors import choose, pictures, read_tar  # noqa: E402

HOW = Encoding(frames=13, height=32, width=48, dtype="float32")


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    return tiny_shards.make(tmp_path_factory.mktemp("packed"), count=4)


@pytest.fixture(scope="module")
def stage(packed, tmp_path_factory) -> Prefer:
    out = tmp_path_factory.mktemp("pairs")
    return Prefer(
        shards=str(packed), out=str(out), frames=13, kinds="reversed|copy-paste|same", grades="2", max_sharpness=9.0
    )


@pytest.fixture(scope="module")
def counts(stage):
    return making.make(stage, 0.25, log=lambda text: None)


@pytest.fixture(scope="module")
def start(packed, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    tiny.save_initial_checkpoint(folder, *tiny_training_data(str(packed), HOW))
    return folder


def read(stage):
    folder = Folder(stage.out)
    return [making.read(folder, row) for row in writer.rows(folder)]


def test_all_pairs_of_a_clip_are_in_one_split(stage, counts):
    assert sum(counts.values()) == len(writer.rows(Folder(stage.out)))
    splits = {}
    for row in writer.rows(Folder(stage.out)):
        splits.setdefault(row.component, set()).add(row.split)
    assert sorted(next(iter(each)) for each in splits.values()) == ["eval", "train", "train", "train"]
    assert all(len(each) == 1 for each in splits.values())


def test_the_better_video_is_the_clip_and_the_worse_its_distortion(stage, counts, packed):
    clips = {
        t.facts.clip_id: video.decode(t.video)[:13]
        for n in packed.glob("*.tar")
        for t in read_tar(Folder(packed), n.name)
    }
    for triplet in read(stage):
        better, worse = video.decode(triplet.video), video.decode(triplet.rejected)
        clip = clips[triplet.pair.clip_id]
        assert np.abs(better.astype(int) - clip).mean() < 4  # compression
        if triplet.pair.kind == "reversed":
            assert np.abs(worse[4:].astype(int) - clip[4:][::-1]).mean() < 4
        assert triplet.pair.tie == (triplet.pair.kind == "same")
        assert (triplet.pair.chosen_sha256, triplet.pair.rejected_sha256) == (
            pairs.sha256(triplet.video),
            pairs.sha256(triplet.rejected),
        )


def test_a_rerun_makes_nothing_and_another_folder_gets_the_same_bytes(stage, counts, tmp_path):
    def tars(out):
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path(out).glob("*.tar")}

    before = tars(stage.out)
    assert making.make(stage, 0.25, log=lambda text: None) == counts
    assert tars(stage.out) == before
    making.make(replace(stage, out=str(tmp_path)), 0.25, log=lambda text: None)
    assert {name: data for name, (data, _) in tars(tmp_path).items()} == {n: data for n, (data, _) in before.items()}


def test_the_encoder_adds_the_worse_video_and_skips_ties(stage, counts, start, tmp_path):
    said = []
    encode(stage.out, str(tmp_path), start, HOW, log=said.append)
    assert sum("neither video" in line for line in said) == sum(n for name, n in counts.items() if "same" in name)
    folder, loaded = Folder(str(tmp_path / "train")), encoders.load(start)
    made = {t.facts.clip_id: t for t in read(stage)}
    for row in writer.rows(folder):
        data = writer.read_sample(folder, row.clip_id, row.shard, row.offset, row.bytes)
        tensors, triplet = load(data["safetensors"]), made[row.clip_id]
        for name, mp4 in (("video", triplet.video), ("rejected", triplet.rejected)):
            assert torch.equal(tensors[name], encoders.encode_video(loaded, video.decode(mp4)))


def test_pairs_that_differ_in_more_than_motion_are_rejected(stage, tmp_path):
    said = []
    with pytest.raises(ValueError, match=r"no pairs .*luma"):
        making.make(replace(stage, out=str(tmp_path), max_luma=-1.0), log=said.append)
    with pytest.raises(ValueError, match="motion 4"):
        making.make(replace(stage, out=str(tmp_path), kinds="reversed", min_motion=0.9), log=said.append)


def test_of_two_results_the_one_that_copies_less_is_preferred(stage, packed, tmp_path):
    """The copy is the reference's own picture; the other is the clip, in both orders of the folders."""
    for triplet in (t for n in packed.glob("*.tar") for t in read_tar(Folder(packed), n.name)):
        frames, (shown, _), _ = pictures(triplet, HOW)
        clip, copy = frames[:13], np.repeat(shown[:1], 13, axis=0)
        for name, each in (("cross", clip), ("copy", copy)):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{triplet.facts.clip_id}.mp4").write_bytes(video.encode(each, 15.0, 1))
    both = [str(tmp_path / name) for name in ("cross", "copy")]
    loose = {"kinds": "same", "max_luma": 1.0, "max_sharpness": 99.0}
    for order in (both, both[::-1]):
        chosen = replace(stage, out=str(tmp_path / order[0][-4:] / "pairs"), results="|".join(order), **loose)
        making.make(chosen, 0.25, log=lambda text: None)
        results = [t for t in read(chosen) if t.pair.kind == "results"]
        assert results
        for t in results:
            assert t.pair.measured["copy_chosen"] < t.pair.measured["copy_rejected"]
            assert np.abs(np.diff(video.decode(t.rejected).astype(int), axis=0)).mean() < 1  # the still picture


def test_regenerated_from_more_noise_is_farther_from_the_clip(packed, start):
    pipeline.quiet()
    pipe = pipeline.load(start, dtype=torch.float32)
    triplet = next(read_tar(Folder(packed), next(packed.glob("*.tar")).name))
    frames, _, _ = pictures(triplet, HOW)
    given = references.prepare(choose(triplet, HOW), 32, 48)
    made = [regenerate(pipe, frames[:13], given, triplet.prompt, strength, steps=4) for strength in (0.0, 0.4, 1.0)]
    far = [np.abs(each.astype(int) - frames[:13]).mean() for each in made]
    assert far == sorted(far)
    assert made[0].shape == frames[:13].shape
    other = regenerate(pipe, 255 - frames[:13], given, triplet.prompt, 1.0, steps=4)
    assert (other == made[2]).all()  # from noise alone
    with pytest.raises(ValueError, match="strength 2"):
        regenerate(pipe, frames[:13], given, triplet.prompt, 2)


def test_settings_that_cannot_be_met_are_refused(stage):
    for wrong, message in (
        ({"kinds": "reversed|slow"}, "'slow'"),
        ({"kinds": "regenerated"}, "--checkpoint"),
        ({"frames": 12}, r"4 n \+ 1"),
        ({"results": "one"}, r"DIR\|DIR"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(stage, **wrong)


def test_pairs_that_disagree_are_reported_with_their_keys():
    pair = pairs.Pair("clip", "reversed", 1, False, "rule", "a", "b")
    pairs.check_agreement([("one", pair), ("two", pair)])
    with pytest.raises(ValueError, match="one and two disagree"):
        pairs.check_agreement([("one", pair), ("two", replace(pair, chosen_sha256="b", rejected_sha256="a"))])
    with pytest.raises(ValueError, match="one and two disagree"):
        pairs.check_agreement([("one", pair), ("two", replace(pair, tie=True))])


def test_a_damaged_pair_is_reported_with_its_key():
    pair = pairs.Pair("clip", "reversed", 1, False, "rule", "a", "b", {"motion": 0.1})
    assert pairs.from_json(pairs.to_json(pair), "k") == pair
    said = json.loads(pairs.to_json(pair))
    for wrong in ({"grade": "x"}, {"format": "other"}, {"measured": 3}):
        with pytest.raises(ValueError, match="'k'"):
            pairs.from_json(json.dumps(said | wrong).encode(), "k")
