import json

import numpy as np
import pytest
from PIL import Image

from a2data import video
from model_zoo import cards
from model_zoo.cards import Detection, Face
from pipelines.a2_bench import measure, videos
from pipelines.a2_bench.cases import Case, Element
from pipelines.a2_bench.score import METRICS, Measured


def paint(path, colour, height=40, width=60):
    Image.fromarray(np.full((height, width, 3), colour, np.uint8)).save(path)
    return path


def load(monkeypatch, **models):
    """Let the model zoo have these, by the name of their card."""
    monkeypatch.setattr(cards, "load", lambda name, device="cpu": models[name.replace("-", "_")])


def test_what_is_not_here_is_skipped_with_a_sentence_and_never_a_number(tmp_path, monkeypatch):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    asked = measure.experts({}, "cpu")
    found = measure.row(Case("a", "", ()), np.zeros((3, 64, 64, 3), np.uint8), 8, asked)
    assert set(METRICS) <= set(found)
    assert all(m.value is None and len(m.skipped) > 20 for m in found.values())
    assert "MUSIQ" in found["image_quality"].skipped


def test_a_card_that_nobody_knows_is_refused():
    with pytest.raises(KeyError, match="no model called 'raft-huge'"):
        measure.experts({"flow": "raft-huge"}, "cpu")


@pytest.fixture
def signers(corpus):
    """Sixteen frames in four of each of three clips: two of one person, one of another."""
    pytest.importorskip("insightface")
    names = {"ann": "again", "ann too": "help", "bea": "bird"}
    return {
        who: video.decode((corpus / f"video/intel_asl_{name}.mkv").read_bytes())[:16:4] for who, name in names.items()
    }


def test_the_same_person_is_near_and_another_far_and_two_are_told_apart(corpus, signers, tmp_path):
    pack = corpus / "weights/models/insightface_mini"
    (ids, *_) = measure.experts({"faces": f"insightface:{pack}"}, "cpu")
    assert ids.metrics == ("id_consistency.insightface",)  # no pack of the paper's, so not under its name
    pictures = {who: tmp_path / f"{who}.png" for who in ("ann", "bea")}
    for who, path in pictures.items():
        Image.fromarray(signers[who][0]).save(path)

    def score(frames, *people):
        case = Case("a", "", tuple(Element("human", pictures[who]) for who in people))
        return ids.ask(case, frames, 15)["id_consistency.insightface"]

    same, other = score(signers["ann too"], "ann"), score(signers["ann too"], "bea")
    assert (same.seen, same.of) == (4, 4)
    assert same.value > 0.65
    assert other.value < 0.6
    beside = np.concatenate([signers["bea"], signers["ann too"]], axis=2)
    both = score(beside, "ann", "bea")
    assert (both.seen, both.of) == (8, 8)
    assert both.value > 0.65
    assert score(np.zeros((3, 64, 64, 3), np.uint8), "ann") == Measured(None, 0, 3)


def test_flow_tells_a_moving_video_from_one_that_stands(corpus):
    (expert,) = (
        e for e in measure.experts({"flow": f"raft-small:{corpus / 'weights/raft-small.pth'}"}, "cpu")
        if "dynamic_degree.raft-small" in e.metrics
    )  # fmt: skip
    assert expert.made_by.startswith("raft-small@")
    coarse = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    wide = np.asarray(Image.fromarray(coarse).resize((640, 512), Image.Resampling.BICUBIC))
    moving = np.stack([wide[100:356, 40 + 14 * n : 296 + 14 * n] for n in range(3)])
    still = np.repeat(moving[:1], 2, 0)
    for frames, dynamic in ((moving, 1.0), (still, 0.0)):
        found = expert.ask(Case("a", "", ()), frames, 8)
        assert found["dynamic_degree.raft-small"].value == dynamic
        smooth = found["motion_smoothness.by-flow.raft-small"]
        assert smooth.value > 0.95 if len(frames) > 2 else smooth.skipped


def face(side, *vector):
    unit = np.array(vector, np.float32) / np.linalg.norm(vector)
    return Face((0.0, 0.0, side, side), 0.9, np.zeros((5, 2), np.float32), unit)


def test_the_largest_face_of_a_portrait_counts_and_a_border_helps_to_find_it():
    assert measure.portrait(lambda _: [face(10, 1, 0), face(30, 0, 1)], np.zeros((40, 40, 3), np.uint8))[1] == 1
    sizes = []

    def shy(picture):
        sizes.append(picture.shape)
        return [face(5, 1, 0)] if (picture[0, 0] == 128).all() else []

    assert measure.portrait(shy, np.zeros((40, 60, 3), np.uint8)) is not None
    assert sizes == [(40, 60, 3), (60, 90, 3)]
    assert measure.portrait(lambda _: [], np.zeros((40, 60, 3), np.uint8)) is None


def test_things_and_places_are_measured_where_the_labels_are_found(tmp_path, monkeypatch):
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
    cup, place = paint(tmp_path / "cup.png", (250, 0, 0)), paint(tmp_path / "place.png", (0, 200, 0))
    case = Case("a", "", (Element("human", cup), Element("object", cup, "cup"), Element("background", place)))
    found = measure.grounded("find", "cut", "embed", "cpu")(case, frames, 15)
    # in the last frame the worse box alone is left, and it is green
    assert found["object_consistency"].value == pytest.approx(4 / 5)
    assert (found["object_consistency"].seen, found["object_consistency"].of) == (5, 5)
    assert 0.8 < found["background_consistency"].value < 1
    bare = measure.grounded("find", "cut", "embed", "cpu")(
        Case("b", "", case.elements[1:2] + case.elements[:1]), frames, 15
    )
    assert bare["background_consistency"].skipped == "the case has no background"


def test_several_things_are_joined_by_the_frames_in_which_they_are_seen():
    found = measure.joined([Measured(0.9, 1, 4), Measured(0.5, 3, 4), Measured(None, 0, 4)])
    assert (found.value, found.seen, found.of) == (pytest.approx((0.9 + 3 * 0.5) / 4), 4, 12)
    assert measure.joined([]).skipped


def test_the_aesthetic_quality_is_a_tenth(monkeypatch):
    load(monkeypatch, head=lambda frames, fps: {"aesthetic": 5.8})
    ask = measure.aesthetic("head", "cpu")
    assert ask(Case("a", "", ()), np.zeros((2, 8, 8, 3), np.uint8), 15)["aesthetic_quality"].value == pytest.approx(
        0.58
    )


def test_values_from_elsewhere_are_read_and_wrong_ones_named():
    cases = [Case("a", "", ())]
    lines = ['{"case": "a", "metric": "image_quality", "value": 0.6}']
    assert measure.given(lines, "f", cases) == {"a": {"image_quality": Measured(0.6)}}
    for bad in (
        '{"case": "b", "metric": "x", "value": 1}',
        '{"case": "a"}',
        "{",
        '{"case": "a", "metric": "x", "value": null}',
    ):
        with pytest.raises(ValueError, match="f, line 1"):
            measure.given([bad], "f", cases)
    with pytest.raises(ValueError, match=r"line 2: .* twice"):
        measure.given(lines * 2, "f", cases)


def test_a_missing_video_counts_in_what_the_others_have_and_its_case_asks_for(tmp_path):
    cup = Element("object", tmp_path / "cup.png", "cup")
    gone = Case("gone", "", (cup,))
    asked = [
        measure.Expert(("id_consistency", "object_consistency"), "x", lambda *_: {}),
        measure.Expert(("iq",), "", None, "no iq"),
    ]
    table = {"here": {"iq": Measured(0.5)}, "gone": measure.row(gone, None, 0, asked)}
    assert table["gone"]["id_consistency"].skipped == "the case has no human"
    assert table["gone"]["object_consistency"] == Measured(None, 0, 0)
    assert table["gone"]["iq"].skipped
    measure.fill_in(table, [gone])
    assert table["gone"]["iq"] == Measured(None, 0, 0)
    assert table["gone"]["id_consistency"].skipped
    assert table["here"] == {"iq": Measured(0.5)}


def test_a_video_is_measured_once_and_again_when_it_or_a_model_changed(tmp_path):
    home, out, seen, said = tmp_path / "videos", tmp_path / "out", [], []
    home.mkdir()
    for n, name in enumerate("ab"):
        (home / f"{name}.mp4").write_bytes(video.encode(np.full((3, 16, 16, 3), 90 * n, np.uint8), 8))
    (home / "c.mp4").write_bytes(b"no video")
    cases = [Case(name, "", ()) for name in "abcd"]

    def light(case, frames, fps):
        seen.append((case.id, len(frames), fps))
        return {"lightness": Measured(float(frames.mean() / 255))}

    def run(revision="1"):
        asked = [measure.Expert(("lightness",), f"eye@{revision}", light), measure.Expert(("x",), "", None, "no x")]
        table, gone = videos.table(cases, home, asked, out, said.append)
        assert [case.id for case in gone] == ["c", "d"]
        return table

    first = run()
    assert seen == [("a", 3, 8.0), ("b", 3, 8.0)]
    assert first["b"]["lightness"].value == pytest.approx(90 / 255, abs=0.02)
    assert first["c"] == first["d"] == {"lightness": Measured(None, 0, 0), "x": Measured(skipped="no x")}
    assert ["cannot be decoded" in said[0], "is not there" in said[1]] == [True, True]
    (out / "measured/b.json").unlink()  # as if it had been killed here
    assert run() == first
    assert [case for case, *_ in seen] == ["a", "b", "b"]
    (home / "a.mp4").write_bytes((home / "b.mp4").read_bytes())
    assert run()["a"] == first["b"]
    assert [case for case, *_ in seen] == ["a", "b", "b", "a"]
    run("2")
    assert [case for case, *_ in seen] == ["a", "b", "b", "a", "a", "b"]
    assert json.loads((out / "measured/a.json").read_text())["row"]["x"]["skipped"] == "no x"
