"""Single figures, on cases small enough to be worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from toy_truth import truth

from a2data.media.images import to_rle
from pipelines.bench.triplets import match_truth, pairs, phrases, pictures, self_test, shots
from pipelines.bench.triplets.predictions import Clip, Prediction, Ref, Sample, Slot, SourceMask
from pipelines.bench.triplets.score import score
from pipelines.films.truth import Entity, Film, Shot, Transition, Truth, sight

WHOLE = (0.0, 0.0, 160.0, 90.0)


def film(**changes) -> Film:
    known = Film(
        "a.mp4",
        25,
        100,
        160,
        90,
        [30, 60],
        [Shot(0, 30), Shot(30, 60), Shot(60, 80), Shot(90, 100)],
        [Transition("fade", 80, 90)],
    )
    return replace(known, **changes)


def clip(name, shot, start, end, transition_in="cut"):
    return Clip(name, "a.mp4", shot, start, end, transition_in, tuple(range(start, end)))


def cuts(*clips):
    made = Prediction({c.id: c for c in clips}, {}, [])
    return {s.name: s.value for s in shots.cut_scores(Truth("S", [film()]), made)}


def test_cuts_are_matched_within_a_tolerance_one_to_one():
    found = cuts(
        clip("a", 0, 0, 30, "start"), clip("b", 1, 30, 61), clip("c", 2, 61, 80), clip("d", 3, 90, 100, "fade")
    )
    assert found["cuts, recall at 0"] == found["cuts, precision at 0"] == 0.5
    assert found["cuts, F1 at 1"] == 1.0
    assert found["gradual transitions, recall"] == 1.0


def test_a_cut_reported_inside_a_transition_or_nowhere_is_false():
    found = cuts(
        clip("a", 0, 0, 30, "start"),
        clip("b", 1, 30, 45),
        clip("c", 2, 45, 60),
        clip("d", 3, 60, 85),
        clip("e", 4, 85, 100),
    )
    assert found["cuts, recall at 0"] == 1.0
    assert found["cuts, precision at 0"] == pytest.approx(2 / 3)  # that at 45; the one in the fade is a fade noticed
    assert found["gradual transitions, recall"] == 1.0


def test_the_end_of_a_shot_whose_next_is_too_short_for_a_clip_counts_where_it_is_right():
    assert cuts(clip("a", 0, 0, 30, "start"), clip("c", 2, 60, 80))["cuts, recall at 0"] == 1.0


@pytest.mark.parametrize(
    ("first", "last", "pure"), [(0, 30, True), (0, 32, True), (0, 33, False), (60, 82, True), (60, 84, False)]
)
def test_a_clip_is_pure_up_to_two_frames_at_its_ends(first, last, pure):
    assert shots.is_pure(film(), tuple(range(first, last))) is pure


@pytest.mark.parametrize("late", [-2, -1, 0, 1, 2])
def test_an_offset_is_read_off_the_thumbnails(late):
    known = film(thumbs=np.random.default_rng(0).integers(0, 255, (100, 18, 24), np.uint8))
    sample = Sample("c", "", (), "", (), tuple(range(10, 20)), known.thumbs[10 + late : 20 + late])
    assert shots.offset(known, sample) == late
    still = replace(known, thumbs=np.full((100, 18, 24), 80, np.uint8))
    assert shots.offset(still, replace(sample, thumbs=still.thumbs[:10])) == 0
    assert shots.offset(film(), sample) is None


def square(x, y=20, side=40):
    mask = np.zeros((90, 160), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def ground(*entities, **changes):
    known = film(
        shots=[Shot(0, 30, "hall", camera="static", entities=list(entities), **changes)], cuts=[], transitions=[]
    )
    return match_truth.GroundTruthMatcher(Truth("S", [known]), Prediction({}, {}, []))


def entity(name, mask, kind="human", **more):
    return Entity(name, kind, sights={n: sight(mask, 1.0) for n in range(30)}, **more)


def ref(mask, role="human", **more):
    return Ref(role, "c/human/0", 0, "d/human/0", "d", SourceMask("a.mp4", 5, to_rle(mask), WHOLE), **more)


def test_a_mask_belongs_to_the_entity_it_covers():
    known = ground(entity("ann", square(10)), entity("bea", square(60)), entity("print", square(110), "poster")).truth
    found = {x: match_truth.match_entity(known, ref(square(x)).origin, "human") for x in (12, 58, 110)}
    assert (found[12].id, found[12].iou) == ("ann", pytest.approx(38 / 42))
    assert found[58].id == "bea"
    assert found[110].entity.kind == "poster"
    assert match_truth.match_entity(known, ref(square(10)).origin, "object").id == ""
    assert match_truth.match_entity(known, ref(square(20, 25, 12), "face").origin, "face").id == "ann"


def test_cleanliness_of_a_shifted_mask_is_what_geometry_says():
    here = ground(entity("ann", square(10)), entity("bea", square(50)))
    made = ref(square(18), white=0.99)
    clean = pictures.cleanliness(here, made, match_truth.match_entity(here.truth, made.origin, "human"))
    assert clean.purity == clean.completeness == pytest.approx(0.8)
    assert clean.iou == pytest.approx(32 / 48)
    assert clean.others == pytest.approx(0.8)  # a fifth of it is bea
    assert not clean.clean
    right = ref(square(10))
    assert pictures.cleanliness(here, right, match_truth.match_entity(here.truth, right.origin, "human")).clean


def test_a_half_transparent_rim_is_right_either_way():
    alpha = np.zeros((90, 160), np.float32)
    alpha[20:60, 20:60], alpha[19, 20:60] = 1.0, 0.5
    with_rim, without = alpha > 0.2, alpha > 0.8
    assert match_truth.overlap(alpha, with_rim)[0] == match_truth.overlap(alpha, with_rim)[1]
    assert match_truth.overlap(alpha, without)[0] == match_truth.overlap(alpha, without)[1]


def test_boundaries_agree_within_a_share_of_the_diagonal():
    assert pictures.boundary_f(square(10), square(10)) == 1.0
    # 0.8 % of 57 px is less than a pixel, which is always allowed
    assert pictures.boundary_f(square(10), square(11)) == 1.0
    assert pictures.boundary_f(square(10), square(14)) < 0.6


def test_a_place_is_empty_where_its_pixels_are_the_plates():
    here = ground(entity("ann", square(10)), plate="p.png")
    plate = np.full((90, 160, 3), 120, np.uint8)
    crop, everything = ~square(10), np.ones((90, 160), bool)
    made = {name: ref(mask, "background", box=WHOLE) for name, mask in (("crop", crop), ("frame", everything))}
    assert pictures.background_quality(here, made["crop"], {}).empty == 1.0
    assert pictures.background_quality(here, made["frame"], {}).empty == pytest.approx(1 - 1600 / 14400)
    median = replace(made["frame"], picture=plate)
    assert pictures.background_quality(here, median, {"p.png": plate}).clean
    assert not pictures.background_quality(here, replace(median, picture=plate + 100), {"p.png": plate}).clean
    assert pictures.background_quality(here, made["crop"], {}).score == 1.0


def test_phrases_are_compared_with_the_truth():
    ann = Entity("ann", "human", ["woman"], colours={"upper": ["red", "pink"]})
    cup = Entity("cup", "object", ["cup", "mug"], colours={"": ["yellow"]})
    read = {
        ("a woman in a red top", "ann"): (2, 0),
        ("a person in a crimson coat", "ann"): (1, 0),
        ("a man in a green top", "ann"): (0, 2),
        ("a person with black hair", "ann"): (0, 0),  # the truth says nothing of hair
        ("a yellow mug", "cup"): (2, 0),
        ("a yellow object", "cup"): (1, 0),
        ("a red bottle", "cup"): (0, 2),
    }
    for (phrase, name), (true, false) in read.items():
        assert phrases.count_claims(phrase, {"ann": ann, "cup": cup}[name]) == phrases.ClaimCounts(true, false), phrase


def test_a_phrase_is_wrong_if_it_fits_another_entity_better():
    people = [entity(n, square(x), colours={"upper": [c]}) for n, x, c in (("ann", 10, "red"), ("bea", 110, "blue"))]
    unit = ground(*people).truth.units[0]
    for phrase, right in (("a person in a red top", "ann"), ("a person on the right", "bea"), ("a person", "both")):
        sample = Sample("c", phrase, (), "", (), (), np.zeros(0))
        slot = Slot(phrase, 0, len(phrase))
        for one in people:
            assert phrases.is_correct(unit, sample, slot, one) == (right in (one.id, "both")), (phrase, one.id)


def test_a_truth_with_people_only_does_not_score_objects():
    known = truth()
    right = self_test.oracle(known)
    people = replace(known, films=[replace(f, labelled=["human"]) for f in known.films])
    swapped = self_test._map_references(
        right, lambda r: self_test._with_source(r, next(iter(right.elements.values()))), ("object",)
    )
    assert score(people, swapped).headline == 1.0
    assert score(known, swapped).headline < 1.0


def test_lost_shots_are_attributed_to_stages():
    known = truth()
    right = self_test.oracle(known)
    gone = right.samples[0].clip
    mine = {i for i, e in right.elements.items() if e.clip == gone}
    left = replace(right, samples=right.samples[1:])
    lost = {
        "retrieve": left,
        "match": replace(left, matched=right.matched - mine),
        "detect": replace(left, elements={i: e for i, e in right.elements.items() if i not in mine}),
        "select": replace(left, clips=right.clips | {gone: replace(right.clips[gone], kept=False)}),
    }
    for stage, made in lost.items():
        result = score(known, made)
        assert result.histogram == {f"lost in {stage}": 1}
        assert result.substitution[stage] == pytest.approx(1 - result.headline)
        assert {v for s, v in result.substitution.items() if s != stage} == {0.0}


def test_a_split_track_lowers_idf1_alone():
    known = truth()
    before, after = (
        score(known, self_test.oracle(known)),
        score(known, self_test.split_tracks(known, self_test.oracle(known))),
    )
    assert after.value("tracks, IDF1") == pytest.approx(0.5, abs=0.02)
    moved = {s.name for s, b in zip(after.scores, before.scores, strict=True) if s.value != b.value}
    # the second halves are not in any pair
    assert moved == {"tracks, IDF1", "identities, B3 recall", "identities, B3 F1"}
    assert after.headline == 1.0


def test_hashes_tell_a_frame_from_another():
    a, b = np.random.default_rng(0).integers(0, 255, (2, 18, 24), np.uint8)
    assert (
        pairs.dhash(a) != pairs.dhash(np.clip(a.astype(int) + 3, 0, 255).astype(np.uint8))
    ).sum() <= pairs.MAX_HAMMING
    assert (pairs.dhash(a) != pairs.dhash(b)).sum() > pairs.MAX_HAMMING
