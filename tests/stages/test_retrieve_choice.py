import numpy as np
import pytest
from toy_looks import ANNA, direction, halved, like, person, picture, pictured, records, retrieve, table, take, wearing

from a2data.records import ClipThumbs, EmbeddedElement, Match
from stages.retrieve.rejections import failed_rules
from stages.retrieve.stage import Retrieve


def test_a_clip_of_the_same_footage_is_refused():
    shown = np.random.default_rng(5).integers(0, 256, (12, 18, 24), dtype=np.uint8)
    copy = np.clip(shown * 0.8 + 10, 0, 255).astype(np.uint8)[3:]
    elements = [*person("a", like(ANNA, 1)), *person("b", like(ANNA, 2))]
    found = retrieve(elements, [take("a", thumbs=shown), take("b", thumbs=copy)])
    assert found["a/human/0"].reason == "only copies"
    assert "b/human/0" in found["a/human/0"].detail


def test_clips_of_one_source_that_share_a_second_are_refused_and_others_are_not():
    elements = [*person("a", like(ANNA, 1)), *person("b", like(ANNA, 2))]
    overlapping = retrieve(elements, [take("a", "v", 1), take("b", "v", 2, start_s=0.5)])
    apart = retrieve(elements, [take("a", "v", 1), take("b", "v", 2, start_s=60.0)])
    assert overlapping["a/human/0"].reason == "only copies"
    assert apart["a/human/0"].source_clip_id == "b"


def test_a_duplicate_picture_of_a_person_is_rejected_by_its_embedding():
    elements = [*person("a", like(ANNA, 1)), *person("b", like(ANNA, 1))]
    assert retrieve(elements, [take("a"), take("b")])["a/human/0"].reason == "only copies"


def test_a_person_in_the_same_outfit_goes_before_one_who_is_more_alike():
    coat, exact = direction(9), like(ANNA, 1)
    elements = [
        *wearing("a", exact, like(coat, 1), "red"),
        *wearing("b", like(ANNA, 2), like(coat, 2), "red"),
        *wearing("c", like(exact, 3, noise=0.1), like(coat, 3), "blue"),
    ]
    found = retrieve(elements, [take(c) for c in "abc"])
    outfit = {rule.name: rule.value for rule in found["a/human/0"].rules}["outfit"]

    assert (found["a/human/0"].source_clip_id, outfit) == ("b", 1.0)
    assert {rule.name: rule.value for rule in found["c/human/0"].rules}["outfit"] == 0.0


def test_a_better_picture_wins_among_equals():
    same = like(ANNA, 2)
    elements = [*person("a", like(ANNA, 1)), *person("b", same), *person("c", same, quality=0.9)]
    found = retrieve(elements, [take("a"), take("b"), take("c")])
    assert found["a/human/0"].source_clip_id == "c"


def test_another_take_of_the_scene_is_riskier_than_another_scene():
    scene = np.random.default_rng(5).integers(0, 256, (12, 18, 24), dtype=np.uint8)
    other_take = scene.copy()
    other_take[:, :12, :12] = 255 - scene[:, :12, :12]
    same = like(ANNA, 2)
    elements = [*person("a", like(ANNA, 1)), *person("b", same), *person("c", same)]
    clips = [take("a", thumbs=scene), take("b", thumbs=other_take)]
    near = retrieve(elements[:4], clips)["a/human/0"]
    far = retrieve(elements, [*clips, take("c")])["a/human/0"]
    assert (near.source_clip_id, far.source_clip_id) == ("b", "c")
    assert near.copy_risk > far.copy_risk


def test_several_references_come_from_different_clips():
    elements = [
        *person("a", like(ANNA, 1)),
        *person("b", like(ANNA, 2), 0, frames=(0,)),
        *person("b", like(ANNA, 3), 1, frames=(10,)),
        *person("c", like(ANNA, 4)),
    ]
    looks = [
        table(EmbeddedElement, [e for e in elements if e.kind == kind])
        for kind in ("human", "face", "hair", "background")
    ]
    matches = table(Match, [Match("a", "a/human/0", "it", 0, 2, 1.0, 1.0)])
    takes = [take("a"), take("b"), take("c")]
    rows = records(
        Retrieve(min_face=0.7, references_per_element=3).run(
            None, matches, table(ClipThumbs, takes), *looks, lookup=pictured(elements, takes)
        )
    )
    assert sorted(r.source_clip_id for r in rows if r.kind == "human") == ["b", "c"]


def test_the_parts_of_the_copy_risk_are_columns_and_the_more_alike_picture_is_the_riskier():
    same = like(ANNA, 2)
    elements = [*person("a", like(ANNA, 1)), *person("b", same), *person("c", same)]
    shown = {"a/human/0": picture(1), "b/human/0": picture(2), "c/human/0": halved(picture(1))}
    found = retrieve(elements[:4], [take(c) for c in "ab"], pictures=shown)["a/human/0"]
    chosen = retrieve(elements, [take(c) for c in "abc"], pictures=shown)["a/human/0"]
    shown["b/human/0"] = halved(picture(1))
    near = retrieve(elements[:4], [take(c) for c in "ab"], pictures=shown)["a/human/0"]

    assert chosen.source_clip_id == found.source_clip_id == "b"
    assert near.pixel_distance < found.pixel_distance
    assert near.copy_risk > found.copy_risk
    assert found.silhouette_distance == 0
    assert near.silhouette_distance > 0.1
    assert found.thumbnail_distance == {r.name: r.value for r in found.rules}["picture_distance"]
    assert found.gap_s == float("inf")
    assert near.log2_scale_ratio == pytest.approx(np.log2(2**0.5), abs=0.1)


def test_a_cropped_copy_that_thumbnails_miss_is_told_by_its_subject():
    elements = [*person("a", like(ANNA, 1)), *person("b", like(ANNA, 2))]
    shown = {"a/human/0": picture(1), "b/human/0": picture(1)}
    cropped = [take("a", seed=1), take("b", seed=2)]
    risky = retrieve(elements, cropped, pictures=shown)["a/human/0"].copy_risk
    refused = retrieve(elements, cropped, pictures=shown, max_copy_risk=0.3)["a/human/0"]

    assert risky > 0.4
    assert refused.reason == "only copies"
    assert "copy_risk" in refused.detail


def test_the_second_of_several_references_is_unlike_the_first():
    first = np.random.default_rng(5).integers(0, 256, (12, 18, 24), dtype=np.uint8)
    again = np.clip(first * 0.9 + 20, 0, 255).astype(np.uint8)
    elements = [
        *person("a", like(ANNA, 1)),
        *(e for n, c in enumerate("bcd") for e in person(c, like(ANNA, 2 + n, 0.2))),
    ]
    looks = [
        table(EmbeddedElement, [e for e in elements if e.kind == kind])
        for kind in ("human", "face", "hair", "background")
    ]
    for pair in ("bc", "bd", "cd"):  # two of one footage: never both
        takes = [take(c, thumbs={pair[0]: first, pair[1]: again}.get(c)) for c in "abcd"]
        tables = table(Match, [Match("a", "a/human/0", "it", 0, 2, 1.0, 1.0)]), table(ClipThumbs, takes), *looks
        stage = Retrieve(min_face=0.7, references_per_element=2)
        rows = records(stage.run(None, *tables, lookup=pictured(elements, takes)))
        taken = {r.source_clip_id for r in rows if r.kind == "human"}
        assert len(taken) == 2
        assert taken != set(pair)


@pytest.mark.parametrize(
    ("low", "cosine", "refused"), [(0.5, 0.9995, True), (0.97, 0.9995, False), (0.97, 0.99999, True)]
)
def test_what_is_too_alike_depends_on_where_the_network_begins_to_call_two_the_same(low, cosine, refused):
    across = direction(99) - (direction(99) @ ANNA) * ANNA
    other = cosine * ANNA + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across)
    elements = [*person("a", ANNA.astype(np.float32)), *person("b", other.astype(np.float32))]
    found = retrieve(elements, [take("a"), take("b")], min_face=low)["a/human/0"]
    assert (getattr(found, "reason", "") == "only copies") == refused


def test_a_doubtful_outline_is_not_a_reference_and_the_rule_says_so():
    doubtful = [*person("b", like(ANNA, 2), mask_confidence=0.5)]
    alone = retrieve([*person("a", like(ANNA, 1), mask_confidence=0.9), *doubtful], [take("a"), take("b")])
    assert alone["a/human/0"].reason == "doubtful outline"
    source, (first, *others) = failed_rules(alone["a/human/0"])
    assert (source, str(first)) == ("b/human/0", "mask_confidence = 0.5, allowed 0.67 to inf: FAIL")
    assert {rule.name for rule in others if rule.passed} >= {"similarity", "picture_distance", "quality"}
    assert alone["b/human/0"].source_element_id == "a/human/0"  # what it stands for may have any outline
    copy = [*person("d", like(ANNA, 2), mask_confidence=0.5)]
    footage = [take("a", seed=3), take("b"), take("d", seed=3)]
    either = retrieve([*person("a", like(ANNA, 1)), *doubtful, *copy], footage)["a/human/0"]
    # the copy is none anyway
    assert (either.reason, either.detail[:27]) == ("doubtful outline", "b/human/0: mask_confidence ")
    better = [*person("c", like(ANNA, 3, noise=0.5), mask_confidence=0.8)]
    found = retrieve([*person("a", like(ANNA, 1)), *doubtful, *better], [take("a"), take("b"), take("c")])
    assert found["a/human/0"].source_element_id == "c/human/0"


def test_an_unrated_outline_does_not_have_a_rule():
    found = retrieve([*person("a", like(ANNA, 1)), *person("b", like(ANNA, 2))], [take("a"), take("b")])
    assert "mask_confidence" not in {rule.name for rule in found["a/human/0"].rules}


def test_of_two_alike_the_one_with_the_surer_outline_is_chosen():
    sure, surer = (person(clip, like(ANNA, 2), mask_confidence=t) for clip, t in (("b", 0.7), ("c", 0.95)))
    found = retrieve([*person("a", like(ANNA, 1)), *sure, *surer], [take("a"), take("b"), take("c")])
    assert found["a/human/0"].source_element_id == "c/human/0"
