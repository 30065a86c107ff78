import numpy as np
import pytest
import toy_bench
from PIL import Image

from a2data.media import video
from model_zoo import cards, roles
from model_zoo.roles import Detection, Face
from pipelines.bench.a2 import metrics as experts
from pipelines.bench.a2 import stages
from pipelines.bench.a2.profiles import PROFILES
from pipelines.bench.a2.totals import Measured


def load(monkeypatch, **models):
    """Let the model zoo have these, by the name of their card."""
    monkeypatch.setattr(cards, "load", lambda name, device="cpu": models[name.replace("-", "_")])
    monkeypatch.setattr(cards, "base_card", lambda name: roles.Card("ground" if name == "find" else "copy", ""))


@pytest.fixture
def signers(corpus):
    """Sixteen frames in four of each of three clips: two of one person, one of another."""
    pytest.importorskip("insightface")
    names = {"ann": "again", "ann too": "help", "bea": "bird"}
    return {
        who: video.decode((corpus / f"video/intel_asl_{name}.mkv").read_bytes())[:16:4] for who, name in names.items()
    }


def expert(stage, **models):
    (made,) = stages.metric_stages({**PROFILES["builtin"], **models}, [stage])
    return made.load()


def test_the_same_person_is_near_and_another_far_and_two_are_distinguished(corpus, signers):
    ids = expert("identity", faces=f"insightface:{corpus / 'weights/models/insightface_mini'}")
    assert ids.metrics == ("id_consistency.insightface",)  # no pack of the paper's, so not under its name

    def score(frames, *people):
        case = toy_bench.asked(*(toy_bench.shown("human", signers[who][0]) for who in people))
        return ids.measure(case, toy_bench.sampled(frames))["id_consistency.insightface"]

    same, other = score(signers["ann too"], "ann"), score(signers["ann too"], "bea")
    assert (same.seen, same.of) == (4, 4)
    assert same.value > 0.65
    assert other.value < 0.6
    beside = np.concatenate([signers["bea"], signers["ann too"]], axis=2)
    both = score(beside, "ann", "bea")
    assert (both.seen, both.of) == (8, 8)
    assert both.value > 0.65
    assert score(np.zeros((3, 64, 64, 3), np.uint8), "ann") == Measured(None, 0, 3)


def tells_motion(flow, name):
    coarse = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    wide = np.asarray(Image.fromarray(coarse).resize((640, 512), Image.Resampling.BICUBIC))
    moving = np.stack([wide[100:356, 40 + 10 * n : 296 + 10 * n] for n in range(3)])
    still = np.repeat(moving[:1], 2, 0)
    for frames, dynamic in ((moving, 1.0), (still, 0.0)):
        found = flow.measure(toy_bench.asked(), toy_bench.sampled(frames, 8))
        assert found[f"dynamic_degree.{name}"].value == dynamic
        smooth = found[f"motion_smoothness.by-flow.{name}"]
        assert smooth.value > 0.95 if len(frames) > 2 else smooth.skipped


def test_flow_without_a_network_tells_a_moving_video_from_one_that_stands():
    tells_motion(expert("dynamic-degree"), "dis")


@pytest.mark.slow
def test_raft_tells_a_moving_video_from_one_that_stands(corpus):
    tells_motion(expert("dynamic-degree", flow=f"raft-small:{corpus / 'weights/raft-small.pth'}"), "raft-small")


def face(side, *vector):
    unit = np.array(vector, np.float32) / np.linalg.norm(vector)
    return Face((0.0, 0.0, side, side), 0.9, np.zeros((5, 2), np.float32), unit)


def test_the_largest_face_of_a_portrait_counts_and_a_border_helps_to_find_it():
    assert (
        experts.embed_largest_face(lambda _: [face(10, 1, 0), face(30, 0, 1)], np.zeros((40, 40, 3), np.uint8))[1] == 1
    )
    sizes = []

    def shy(picture):
        sizes.append(picture.shape)
        return [face(5, 1, 0)] if (picture[0, 0] == 128).all() else []

    assert experts.embed_largest_face(shy, np.zeros((40, 60, 3), np.uint8)) is not None
    assert sizes == [(40, 60, 3), (60, 90, 3)]
    assert experts.embed_largest_face(lambda _: [], np.zeros((40, 60, 3), np.uint8)) is None


def test_things_and_places_are_measured_where_the_labels_are_found(monkeypatch):
    """A red cup and a person over a green place. The finder sees colours, the cutter fills boxes; a vector is a mean colour."""
    frames = np.full((5, 40, 60, 3), (0, 200, 0), np.uint8)
    frames[:, 10:20, 10:20] = (250, 0, 0)
    frames[:, 5:35, 40:50] = (0, 0, 250)
    frames[4, 10:20, 10:20] = (0, 200, 0)  # the cup is gone at last
    boxes = {"cup": (0, (10.0, 10.0, 20.0, 20.0)), "person": (2, (40.0, 5.0, 50.0, 35.0))}

    def find(pictures, labels):
        assert list(labels) == ["cup", "person"]
        seen = [[(name, boxes[name][1]) for name in labels if p[..., boxes[name][0]].max() == 250] for p in pictures]
        worse = Detection("object", "cup", 0.1, (0.0, 0.0, 9.0, 9.0), None)
        return [[worse, *(Detection("object", n, 0.8, b, None) for n, b in found)] if found else [] for found in seen]

    def cut(frame, asked):
        masks = np.zeros((len(asked), *frame.shape[:2]), bool)
        for mask, (x0, y0, x1, y1) in zip(masks, asked.astype(int), strict=True):
            mask[y0:y1, x0:x1] = True
        return masks

    def embed(pictures):
        means = np.stack([p.reshape(-1, 3).mean(0) for p in pictures])
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    load(monkeypatch, find=find, cut=cut, embed=embed)
    cup, place = toy_bench.shown("object", (250, 0, 0), "cup"), toy_bench.shown("background", (0, 200, 0))
    somebody = toy_bench.shown("human", (250, 0, 0))
    ask = experts.subject_consistency("find", "cut", "embed", "cpu")
    found = ask(toy_bench.asked(somebody, cup, place), toy_bench.sampled(frames))
    # in the last frame the worse box alone is left, and it is green
    assert found["object_consistency"].value == pytest.approx(4 / 5)
    assert (found["object_consistency"].seen, found["object_consistency"].of) == (5, 5)
    assert 0.8 < found["background_consistency"].value < 1
    bare = ask(toy_bench.asked(cup, somebody), toy_bench.sampled(frames))
    assert bare["background_consistency"].skipped == "the case has no background"


def test_a_detector_with_classes_of_its_own_finds_what_the_labels_mean():
    def seen(kind, label, score):
        return Detection(kind, label, score, (0.0, 0.0, 1.0, 1.0), np.ones((2, 2), bool))

    people, things = ["man", "woman"], ["red cup", "dog"]
    here = [
        seen("object", "cup", 0.5),
        seen("object", "cup", 0.9),
        seen("human", "person", 0.4),
        seen("object", "cat", 0.8),
    ]
    assert {label: d.score for label, d in experts.assign_classes(here, things, people).items()} == {
        "red cup": 0.9,
        "man": 0.4,
    }
    nameless = [seen("object", "object", 0.3), seen("human", "person", 0.6), seen("human", "person", 0.7)]
    assert {label: d.score for label, d in experts.assign_classes(nameless, things, people).items()} == {
        "man": 0.7, "woman": 0.6, "red cup": 0.3
    }  # fmt: skip


def test_what_is_in_the_mask_does_not_change_the_background(monkeypatch):
    """A box of another colour each time, on one ground; around it nothing changes, and so does the figure not."""
    rng = np.random.default_rng(0)
    ground = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((120, 90)))
    boxed = lambda picture, labels: [[Detection("object", "cup", 0.9, (30.0, 20.0, 70.0, 60.0), None)] for _ in picture]  # noqa: E731

    def cut(frame, boxes):
        mask = np.zeros((1, *frame.shape[:2]), bool)
        mask[0, 20:60, 30:70] = True
        return mask

    def embed(pictures):
        rows = np.stack([np.asarray(Image.fromarray(p).resize((8, 6))).ravel() for p in pictures]).astype(float)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    load(monkeypatch, find=boxed, cut=cut, embed=embed)
    ask = experts.subject_consistency("find", "cut", "embed", "cpu")
    case = toy_bench.asked(toy_bench.shown("object", (9, 9, 9), "cup"), toy_bench.shown("background", ground))
    values = []
    for fill in (1, 255, rng.integers(0, 256, (40, 40, 3), np.uint8)):
        frames = np.repeat(ground[None], 3, 0)
        frames[:, 20:60, 30:70] = fill
        values.append(ask(case, toy_bench.sampled(frames))["background_consistency"].value)
    assert values[0] == values[1] == values[2]
    outside = np.repeat(ground[None], 3, 0)
    outside[:, :15] = 255 - outside[:, :15]
    assert ask(case, toy_bench.sampled(outside))["background_consistency"].value < values[0]


def test_a_case_with_its_truth_has_a_copy_paste_score(monkeypatch):
    """Faces are colours: the reference red, the truth green, the output what we say."""

    def read(picture):
        mean = picture.reshape(-1, 3).mean(0)
        return [face(9, *mean)] if mean.max() > 60 else []

    load(monkeypatch, eye=read)
    ask = experts.copy_paste("eye", "cpu")
    case = toy_bench.asked(toy_bench.shown("human", (250, 0, 0)), truth=b"mp4")
    case.__dict__["true_frames"] = np.full((4, 20, 20, 3), (0, 250, 0), np.uint8)

    def score(*colour):
        return ask(case, toy_bench.sampled(np.full((3, 20, 20, 3), colour, np.uint8)))["copy_paste"]

    assert score(250, 0, 0).value == pytest.approx(1, abs=1e-6)
    assert score(0, 250, 0).value == pytest.approx(-1, abs=1e-6)
    assert score(200, 200, 0).value == pytest.approx(0, abs=1e-6)
    assert score(0, 0, 0).skipped
    assert ask(
        toy_bench.asked(toy_bench.shown("human", (250, 0, 0))), toy_bench.sampled(np.zeros((1, 9, 9, 3), np.uint8))
    )["copy_paste"].skipped.startswith("the case has no truth")


def test_several_things_are_joined_by_the_frames_in_which_they_are_seen():
    found = experts.pool_objects([Measured(0.9, 1, 4), Measured(0.5, 3, 4), Measured(None, 0, 4)])
    assert (found.value, found.seen, found.of) == (pytest.approx((0.9 + 3 * 0.5) / 4), 4, 12)
    assert experts.pool_objects([]).skipped


def test_the_scales_are_those_of_the_table(monkeypatch):
    load(
        monkeypatch,
        head=lambda frames, fps: {"aesthetic": 5.8},
        half=lambda a, b: a,
        reader=lambda frames, text: 0.25 if len(frames) == 8 and text == "a cup" else 0.0,
    )
    made = toy_bench.sampled(np.repeat(np.array([0, 51, 0], np.uint8), 8 * 8 * 3).reshape(3, 8, 8, 3))
    case = toy_bench.asked(prompt="a cup")
    assert experts.aesthetic("head", "cpu")(case, made)["aesthetic_quality"].value == pytest.approx(0.58)
    assert experts.text_similarity("reader", "cpu")(case, made)["text_similarity"].value == pytest.approx(25)
    raw = 1 - 51 / 255  # the interpolation repeats the first frame
    assert experts.motion_smoothness("half", "cpu")(case, made)["motion_smoothness"].value == pytest.approx(
        (raw - 0.706) / (0.9975 - 0.706)
    )


def test_a_card_of_another_role_is_not_taken_for_optical_flow():
    with pytest.raises(ValueError, match="blur-effect, which has role quality"):
        experts.dynamic_degree("blur-effect", "cpu")
