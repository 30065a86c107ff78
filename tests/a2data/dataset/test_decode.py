from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from a2data.dataset.batch_plan import Batch, Bucket
from a2data.dataset.decode import (
    Augmentation,
    CorruptError,
    Decode,
    Shape,
    captions_of,
    center_crop_resize,
    decode_frames,
)
from a2data.dataset.reader import Tars, members, read_index
from a2data.dataset.triplet import NamedCaption
from a2data.media import video
from a2data.media.sound import with_sound

BUCKET = Bucket(4, 16, 16)


@pytest.fixture(scope="module")
def sample(tmp_path_factory, pack):
    """The members of a sample with a human, an object and a place."""
    folder = tmp_path_factory.mktemp("packed")
    pack(folder)
    index = read_index([folder])
    return members(Tars(index).read(7), "clip-007", "")


def decoded(sample, index=0, view="raw", shape=center_crop_resize, **chances):
    batch = Batch(0, 0, 0, 0, BUCKET, np.array([7]))
    return Decode(view, 0, shape, Augmentation(**chances), 1)(
        sample, batch, index, 7, "clip-007", lambda row: Shape(9, 32, 48, 3)
    )


def test_a_raw_sample_has_frames_of_its_bucket_and_pictures(sample):
    made = decoded(sample)
    assert (made.video.shape, made.video.dtype) == ((4, 16, 16, 3), np.uint8)
    assert [(r.kind, r.name, r.phrase) for r in made.references] == [
        ("human", "ref0", "A person"),
        ("object", "ref1", ""),
        ("background", "bg", ""),
    ]
    assert [r.picture[0, 0].tolist() for r in made.references] == [[0] * 3, [60] * 3, [120] * 3]
    assert made.facts.clip_id == made.key == "clip-007"
    assert made.caption == made.facts.caption.prompt


def test_the_sound_of_a_sample_is_that_of_its_frames(sample):
    rate_hz, batch = 48_000, Batch(0, 0, 0, 0, BUCKET, np.array([7]))
    ramp = np.tile(np.linspace(0, 1, 9 * rate_hz // 15, dtype=np.float32), (2, 1))
    tone = ramp * np.sin(2 * np.pi * 440 * np.arange(ramp.shape[1]) / rate_hz).astype(np.float32)
    loud = sample | {"mp4": memoryview(with_sound(bytes(sample["mp4"]), tone, rate_hz))}
    decode = Decode("raw", 0, center_crop_resize, Augmentation(), 1, sound_hz=rate_hz)
    for index in range(4):
        made, silent = (decode(each, batch, index, 7, "", lambda row: Shape(9, 32, 48, 3)) for each in (loud, sample))
        # frame n is as light as 40 + 16 n
        start = round((int(made.video[0, 0, 0, 0]) - 40) / 16) * rate_hz // 15
        assert np.corrcoef(made.sound[1], tone[1, start : start + 12_800])[0, 1] > 0.95  # -0.5 a frame later
        assert (silent.sound.shape, silent.sound.any()) == ((2, 12_800), False)
    assert decoded(loud).sound is None


def test_the_first_frame_is_drawn_and_the_others_follow(sample):
    whole = video.decode(bytes(sample["mp4"]))
    starts = set()
    for index in range(40):
        made = decoded(sample, index).video
        light = [int(abs(whole[:, 0, 0, 0].astype(int) - frame[0, 0, 0]).argmin()) for frame in made]
        assert light == list(range(light[0], light[0] + 4))
        starts.add(light[0])
    assert starts == set(range(6))


def test_cover_shows_the_middle_and_keeps_the_geometry():
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[16:32, 32:48] = 255
    shown = center_crop_resize(iter([frame] * 4), Bucket(4, 32, 32), np.random.default_rng(0))
    expected = np.zeros((32, 32), bool)
    expected[8:16, 8:16] = True
    assert ((shown > 127) == expected[None, :, :, None]).all()


def test_cover_anywhere_shows_the_same_part_in_every_frame():
    frame = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, :, None], (32, 96, 3))
    lefts = set()
    for seed in range(60):
        shown = center_crop_resize(
            iter([frame] * 4), Bucket(4, 32, 32), np.random.default_rng(seed), random_position=True
        )
        assert (shown == shown[:1]).all()
        assert (np.diff(shown[0, 0, :, 0].astype(int)) == 1).all()
        lefts.add(int(shown[0, 0, 0, 0]))
    assert min(lefts) < 8
    assert max(lefts) > 56
    assert max(lefts) <= 64


def test_a_shape_of_ones_own_gets_the_frames_and_the_bucket(sample):
    made = decoded(sample, shape=lambda frames, bucket, rng: np.stack(list(frames))[:, : bucket.height])
    assert made.video.shape == (4, 16, 48, 3)


def test_frames_that_the_video_does_not_have_make_it_corrupt(sample):
    assert len(list(decode_frames(sample["mp4"], 5, 4, 1))) == 4
    with pytest.raises(CorruptError, match=r"has 9 frames in its .mp4, fewer than"):
        list(decode_frames(sample["mp4"], 6, 4, 1))


def chosen(sample, **chances):
    """The names of the references that 300 samples like this one would use."""
    facts, decode = decoded(sample).facts, Decode("raw", 0, center_crop_resize, Augmentation(**chances), 1)
    return [tuple(g.name for g in decode.choose_references(facts.references, 0, n)) for n in range(300)]


def test_captions_are_dropped_and_shortened_as_often_as_asked(sample):
    decode = Decode("raw", 0, center_crop_resize, Augmentation(caption_drop=0.3, short_caption=0.5), 1)
    captions = captions_of(decoded(sample).facts)
    told = Counter(decode.caption(captions, 0, n) for n in range(600))
    prompt, short = "A person, clip-007, in a kitchen.", "A person, a kitchen"
    assert set(told) == {prompt, short, ""}
    assert 140 < told[""] < 220
    assert 160 < told[short] < 260


def test_a_caption_is_drawn_by_name_or_at_random_the_same_each_time(sample):
    facts = replace(decoded(sample).facts, captions=[NamedCaption("structured", "{}")])

    def told(name):
        decode = Decode("raw", 0, center_crop_resize, Augmentation(caption=name), 1)
        return [decode.caption(captions_of(facts), 0, n) for n in range(90)]

    assert set(told("structured")) == {"{}"}
    assert told("any") == told("any")
    assert all(20 < count < 40 for count in Counter(told("any")).values())
    assert set(told("any")) == {"A person, clip-007, in a kitchen.", "A person, a kitchen", "{}"}
    with pytest.raises(CorruptError, match="does not have a caption 'medium'; it has long, short, structured"):
        told("medium")


def test_references_are_dropped_singled_out_and_bounded(sample):
    every = ("ref0", "ref1", "bg")
    assert set(chosen(sample)) == {every}
    assert 15 < chosen(sample, reference_drop=0.1).count(()) < 47
    singles = Counter(chosen(sample, single_reference=0.5))
    assert set(singles) == {every, ("ref0",), ("ref1",), ("bg",)}
    assert 115 < singles[every] < 185
    assert set(chosen(sample, max_references=2)) == {("ref0", "ref1"), ("ref0", "bg"), ("ref1", "bg")}
    assert len(set(chosen(sample, shuffle=True))) == 6
    assert set(chosen(sample, roles=("background", "human"))) == {("ref0", "bg")}


def test_an_encoded_sample_may_be_without_facts():
    made = decoded({"safetensors": EMPTY}, view="encoded")
    assert made.facts is None
    assert made.tensors == {}


def test_what_nothing_is_decoded_of_is_the_bytes_that_were_packed(sample):
    made = decoded(sample, view="bytes")
    assert made.members == sample
    assert made.facts is None


def test_the_short_caption_of_a_prompt_without_phrases_is_the_prompt(sample):
    facts = decoded(sample).facts
    bare = replace(facts, caption=replace(facts.caption, subjects=[], environment_start=0, environment_end=0))
    assert captions_of(bare) == {"long": facts.caption.prompt, "short": facts.caption.prompt}


EMPTY = (8).to_bytes(8, "little") + b"{}      "  # a safetensors file of no tensor
