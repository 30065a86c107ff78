"""Thresholds from pairs whose answer is known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2data.records import Clip, Element, Source
from a2data.store.schema import schema
from a2data.store.tables import Store
from pipelines import marks as marking
from pipelines.cli import main as cli
from pipelines.corpus import calibrate
from pipelines.corpus.calibrate import (
    CalibratedThreshold,
    Pairs,
    different_source_pairs,
    estimate_threshold,
    threshold_at_far,
    threshold_interval,
)
from pipelines.marks import mark
from pipelines.run import recipe
from pipelines.run.recipe import Recipe, element_tables
from pipelines.triplets import triplets

BOX = (10.0, 10.0, 50.0, 50.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 0.984375, width=32), min_size=1, max_size=200), st.floats(0.001, 0.4))
def test_the_threshold_is_the_lowest_that_keeps_to_the_rate(values, rate):
    x = np.array(values)
    threshold = threshold_at_far(x, rate)
    assert np.sum(x >= threshold) <= rate * len(x)
    assert np.sum(x >= threshold - 2e-5) > rate * len(x)


def test_the_bootstrap_covers_the_true_quantile_about_as_often_as_it_says():
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        low, high = threshold_interval(Pairs(rng.normal(0, 0.1, 3000), np.arange(3000)), 0.05)
        covered += low <= 0.16449 <= high
    assert covered >= 34


def test_pairs_of_one_clip_give_no_interval_and_of_few_clips_a_wide_one():
    x = np.random.default_rng(0).normal(0, 0.1, 1000) + np.repeat(np.linspace(0, 0.3, 10), 100)
    assert all(math.isnan(v) for v in threshold_interval(Pairs(x, np.zeros(1000, int)), 0.05))
    by_clip = threshold_interval(Pairs(x, np.repeat(np.arange(10), 100)), 0.05)
    by_pair = threshold_interval(Pairs(x, np.arange(1000)), 0.05)
    assert by_clip[1] - by_clip[0] > 2 * (by_pair[1] - by_pair[0])


def test_the_threshold_keeps_to_the_rate_on_other_pairs_too_and_that_of_these_alone_does_not():
    kept, here = 0, 0
    for seed in range(30):
        seen, other = np.random.default_rng(seed).normal(0, 0.1, (2, 20_000))
        found = estimate_threshold(Pairs(seen[:1000], np.arange(1000)), pairs(), pairs(0.9), 0.02)
        kept += (other >= found.threshold).mean() <= 0.02
        here += (other >= found.threshold_here).mean() <= 0.02
    assert kept >= 27
    assert here <= 22


def pairs(*values):
    return Pairs(np.array(values, float), np.arange(len(values)))


def test_too_few_pairs_are_refused_with_what_they_would_do_for():
    sentence = estimate_threshold(pairs(*[0.1] * 30), pairs(), pairs(0.9), 0.001)
    assert "needs 1000 pairs" in sentence
    assert "only 30 share a frame" in sentence
    assert "--target-far 0.04" in sentence
    assert isinstance(estimate_threshold(pairs(*[0.1] * 30), pairs(), pairs(0.9), 0.04), CalibratedThreshold)


def test_weak_negatives_are_used_only_where_the_sure_ones_do_not_suffice():
    sure, weak = pairs(*np.linspace(0, 0.3, 100)), pairs(*np.linspace(0, 0.6, 100))
    assert estimate_threshold(sure, weak, pairs(), 0.01).weak_negatives == 0
    assert estimate_threshold(sure, weak, pairs(), 0.01).threshold_here == pytest.approx(0.297, abs=1e-4)
    mixed = estimate_threshold(sure, weak, pairs(), 0.005)
    assert (mixed.negatives, mixed.weak_negatives) == (100, 100)
    assert mixed.threshold_here == pytest.approx(0.594, abs=1e-4)


def test_a_model_to_which_different_ones_are_the_same_is_refused():
    assert "cannot separate them" in estimate_threshold(pairs(*[1.0] * 50), pairs(), pairs(), 0.1)


def test_only_stated_sources_that_differ_make_weak_negatives():
    found = different_source_pairs(["a", "a", "b", "", "b"], ["x", "x", "x", "x", "y"])
    assert found == [(0, 2), (1, 2)]


# -- a work folder -----------------------------------------------------------------------------------------------------


def unit(x):
    return (x / np.linalg.norm(x)).astype(np.float32).tolist()


def blank(record, **given):
    """A row of which only some columns matter."""
    empty = {"string": "", "int64": 0, "double": 0.0, "bool": False, "large_binary": b""}
    return record(**({f.name: empty.get(str(f.type), []) for f in schema(record)} | given))


@pytest.fixture
def store(tmp_path) -> Store:
    """A film of 40 shots of two clips with two people each, who continue from the first clip to the second."""
    store, rng = Store(tmp_path / "work"), np.random.default_rng(0)
    clips, faces = [], []
    for shot in range(40):
        people = rng.normal(size=(2, 64))
        for part in range(2):
            clip_id, first_s = f"v-{shot * 200 + part * 81:08d}", shot * 20 + part * 5.4
            about = {"width": 64, "height": 64, "crop": (0.0, 0.0, 64.0, 64.0), "fps": 15.0}
            times = [first_s + n / 15 for n in range(81)]
            clips.append(blank(Clip, clip_id=clip_id, video_id="v", shot=shot, source_pts_s=times, **about))
            for number, person in enumerate(people):
                box = tuple(v + 64.0 * number for v in BOX)
                row = {"clip_id": clip_id, "element_id": f"{clip_id}/face/{number}", "kind": "face", "label": "face"}
                row |= {"box": box, "seen_frames": [0, 40, 80], "seen_boxes": [box] * 3, "embedder": "dlib"}
                faces.append(blank(Element, **row, embedding=unit(person + 0.3 * rng.normal(size=64))))
    store.write("manifest", 0, Source, [Source("v", "/v.mp4", "", "", "", 1, "")])
    store.write("segment", 0, Clip, clips)
    for name in element_tables(triplets()):
        store.write(name, 0, Element, faces if name == "faces" else [])
    Recipe().save(store)
    return store


def test_people_in_one_frame_are_two_and_a_track_that_continues_in_the_next_clip_is_one(store, capsys):
    assert cli.main(["calibrate", store.root, "--target-far", "0.02"]) == 0
    out = capsys.readouterr().out
    about = json.loads((store.get("thresholds.json") or b"{}").decode())
    found = about["evidence"]["dlib face"]
    assert (found["negatives"], found["weak_negatives"], found["positives"]) == (80, 0, 0)  # 0.07 s apart: not far
    assert 0.2 < found["threshold"] < 0.6
    assert "true accepts not known" in out
    (retrieve,) = (s for s in Recipe().apply(triplets(), store) if s.name() == "retrieve")
    assert json.loads(retrieve.calibrated) == {"dlib": {"face": found["threshold"]}}


def test_a_track_far_apart_in_time_is_a_positive(store, monkeypatch):
    monkeypatch.setattr(calibrate, "MIN_POSITIVE_GAP_S", 0.05)
    found, _ = calibrate.calibrate(store, 0.02, triplets())
    finding = found["dlib", "face"]
    assert finding.positives == 80
    assert finding.true_accept == 1.0
    assert finding.true_accept_low > 0.95


def test_a_calibration_is_part_of_the_key_of_retrieve_and_of_no_other_stage(store):
    before = {s.name(): s.cache_fields() for s in Recipe().apply(triplets(), store)}
    cli.main(["calibrate", store.root, "--target-far", "0.02"])
    after = {s.name(): s.cache_fields() for s in Recipe().apply(triplets(), store)}
    assert [name for name in before if before[name] != after[name]] == ["retrieve"]


def test_nothing_is_written_where_nothing_could_be_calibrated_or_by_a_dry_run(store, capsys):
    assert cli.main(["calibrate", store.root]) == 1
    assert "needs 1000 pairs of different elements, but only 80" in capsys.readouterr().out
    assert cli.main(["calibrate", store.root, "--target-far", "0.02", "--dry-run"]) == 0
    assert store.get("thresholds.json") is None


def test_a_damaged_file_is_named(store):
    store.put(b"{", "thresholds.json")
    with pytest.raises(ValueError, match=r"thresholds\.json cannot be read"):
        recipe.thresholds(store)


def test_marked_pairs_replace_those_of_their_kind_and_marks_of_people_count_for_their_faces(store, tmp_path, capsys):
    faces = list(store.read("faces", 0, Element))
    people = [
        blank(Element, clip_id=f.clip_id, element_id=f"{f.element_id}-owner", kind="human", frame=3, box=BOX)
        for f in faces
    ]
    owned = [replace(f, parent_id=f"{f.element_id}-owner") for f in faces]
    store.write("detect", 0, Element, people)
    store.write("faces", 0, Element, owned)
    wrong = [mark((people[0].element_id, 3), (other.element_id, 3), False) for other in people[4:44]]
    right = mark((faces[0].element_id, 0), (faces[2].element_id, 0), True)
    gone = mark((faces[0].element_id, 0), (faces[6].element_id, 5), False)
    path = str(tmp_path / "marks.json")
    marking.write(path, {each.elements: each for each in (*wrong, right, gone)})
    assert cli.main(["calibrate", store.root, "--target-far", "0.05", "--marks", path]) == 0
    out = capsys.readouterr().out
    assert "40 negatives that were marked" in out
    assert "not calibrated: 1 marks: their elements are gone" in out
    found = json.loads((store.get("thresholds.json") or b"{}").decode())["evidence"]["dlib face"]
    x = np.array([f.embedding for f in faces])
    worst = np.sort(x[4:44] @ x[0])[-3]  # two of forty may pass
    assert found["threshold_here"] == pytest.approx(worst, abs=2e-5)
    assert (found["positives"], found["true_accept"]) == (1, float(x[0] @ x[2] >= found["threshold"]))


def test_a_file_without_marks_is_refused(store, tmp_path, capsys):
    assert cli.main(["calibrate", store.root, "--marks", str(tmp_path / "none.json")]) == 2
    assert "none.json does not have marks" in capsys.readouterr().err
