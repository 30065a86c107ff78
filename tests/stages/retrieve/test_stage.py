import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_looks import ANNA, BERT, direction, like, look, person, pictured, records, retrieve, table, take, wearing

from a2data.records import ClipThumbs, EmbeddedElement, Match, Reference, Reject
from stages.retrieve.stage import Retrieve


def test_a_person_is_found_in_the_other_clip_that_shows_them():
    elements = [*person("a", like(ANNA, 1)), *person("b", like(ANNA, 2)), *person("c", like(BERT, 3))]
    found = retrieve(elements, [take("a"), take("b"), take("c")])
    assert found["a/human/0"].source_element_id == "b/human/0"
    assert found["a/face/0"].source_element_id == "b/face/0"
    assert found["a/human/0"].image_sha256 == "sha of b/human/0"
    assert found["a/human/0"].identity == found["b/face/0"].identity
    reject = found["c/human/0"]
    assert reject == Reject("c/human/0", "no other clip shows it", reject.detail)
    assert reject.detail == "b/human/0: similarity = 0.235, allowed 0.7 to inf: FAIL"  # without other similar people


def test_every_rule_is_recorded_with_its_value_and_passes():
    found = retrieve([*person("a", like(ANNA, 1)), *person("b", like(ANNA, 2))], [take("a"), take("b")])
    rules = {rule.name: rule for rule in found["a/human/0"].rules}
    assert set(rules) >= {
        "similarity",
        "margin",
        "cohesion",
        "overlap_s",
        "repeat_distance",
        "picture_distance",
        "copy_risk",
    }
    assert all(rule.passed for rule in rules.values())
    assert rules["similarity"].value == pytest.approx(float(like(ANNA, 1) @ like(ANNA, 2)), abs=1e-5)


def test_the_shard_of_the_source_is_kept():
    elements = [*person("a", like(ANNA, 1)), *person("b", like(ANNA, 2))]
    looks = [
        pa.concat_tables(
            [
                table(EmbeddedElement, [e for e in elements if e.kind == kind and e.clip_id == clip], shard)
                for clip, shard in (("a", 4), ("b", 9))
            ]
        )
        for kind in ("human", "face", "hair", "background")
    ]
    matches = table(Match, [Match("a", "a/human/0", "it", 0, 2, 1.0, 1.0)])
    takes = [take("a"), take("b")]
    rows = records(
        Retrieve(min_face=0.7).run(None, matches, table(ClipThumbs, takes), *looks, lookup=pictured(elements, takes))
    )
    assert {(r.element_id, r.source_shard) for r in rows} == {("a/human/0", 9), ("a/face/0", 9)}


def test_a_face_without_an_embedding_does_not_identify_a_person():
    elements = [*person("a", []), *person("b", like(ANNA, 2))]
    found = retrieve(elements, [take("a"), take("b")])
    assert found["a/human/0"].reason == found["a/face/0"].reason == "no identity"


def test_two_in_one_frame_never_become_one_person():
    twins = [*person("a", like(ANNA, 1), 0), *person("a", like(ANNA, 2), 1)]
    found = retrieve([*twins, *person("b", like(ANNA, 3))], [take("a"), take("b")])
    assert {type(found["a/human/0"]), type(found["a/human/1"])} == {Reject}
    assert found["b/human/0"].reason == "ambiguous identity"


def test_the_same_track_found_twice_in_a_clip_is_one_person():
    early, late = person("a", like(ANNA, 1), 0, frames=(0, 5)), person("a", like(ANNA, 2), 1, frames=(10,))
    found = retrieve([*early, *late, *person("b", like(ANNA, 3))], [take("a"), take("b")])
    assert found["a/human/0"].source_clip_id == found["a/human/1"].source_clip_id == "b"
    assert found["a/human/0"].identity == found["a/human/1"].identity


def test_objects_are_the_same_only_under_the_same_label():
    cup = [
        look(c, "object", vector=like(ANNA, n), label=label)
        for n, (c, label) in enumerate([("a", "cup"), ("b", "cup"), ("c", "bottle")])
    ]
    found = retrieve(cup, [take("a"), take("b"), take("c")])
    assert found["a/object/0"].source_clip_id == "b"
    assert found["c/object/0"].reason == "no other clip shows it"


def test_a_garment_comes_from_the_same_person_in_the_same_colour():
    coat = direction(9)
    elements = [
        *wearing("a", like(ANNA, 1), like(coat, 1), "red"),
        *wearing("b", like(ANNA, 2), like(coat, 2), "red"),
        *wearing("c", like(ANNA, 3), like(coat, 3), "blue"),
        *wearing("d", like(BERT, 4), like(coat, 4), "red"),
    ]
    found = retrieve(elements, [take(c) for c in "abcd"])
    assert found["a/upper/0"].source_element_id == "b/upper/0"
    assert found["a/upper/0"].identity == found["a/human/0"].identity
    assert found["c/upper/0"].reason == found["d/upper/0"].reason == "no other clip shows it"


def test_a_place_is_found_in_another_clip_of_it():
    room, street = direction(11), direction(12)
    elements = [
        look(c, "background", vector=like(v, n), embedder="mobilenetv2")
        for n, (c, v) in enumerate([("a", room), ("b", room), ("c", street)])
    ]
    found = retrieve(elements, [take(c) for c in "abc"])
    assert found["a/background/0"].source_clip_id == "b"
    assert isinstance(found["c/background/0"], Reject)


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(random):
    elements = [e for n, c in enumerate("abcdef") for e in person(c, like(ANNA if n % 2 else BERT, n, 0.6))]
    takes = [take(c) for c in "abcdef"]
    expected = retrieve(elements, takes)
    random.shuffle(elements)
    random.shuffle(takes)
    assert retrieve(elements, takes) == expected


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_planted_people_get_references_of_themselves(seed):
    """Twelve clips with two people each, of six: whoever gets a reference gets one of the same person in another clip."""
    rng = np.random.default_rng(seed)
    elements, who = [], {}
    for clip in (f"c{n:02d}" for n in range(12)):
        for number, one in enumerate(rng.choice(6, 2, replace=False)):
            vector = like(direction(seed, 100 + one), int(rng.integers(1 << 30)), 0.5)
            elements += person(clip, vector, number)
            who[f"{clip}/human/{number}"] = one
    found = retrieve(elements, [take(f"c{n:02d}") for n in range(12)], min_face=0.6)
    references = [r for r in found.values() if isinstance(r, Reference) and r.kind == "human"]
    assert all(who[r.element_id] == who[r.source_element_id] and r.clip_id != r.source_clip_id for r in references)
    several = [key for key, one in who.items() if list(who.values()).count(one) > 1]
    assert len(references) >= 0.9 * len(several)


def test_people_of_many_more_clips_than_neighbours_get_references_of_themselves():
    who = {f"c{n:03d}/face/0": n % 2 for n in range(120)}
    vectors = {name: like(direction(5, one), 100 + n, 0.75) for n, (name, one) in enumerate(who.items())}
    elements = [look(name[:4], "face", vector=vector) for name, vector in vectors.items()]
    found = retrieve(elements, [take(e.clip_id) for e in elements], min_face=0.45, top_k=8)
    references = [r for r in found.values() if isinstance(r, Reference)]
    assert len(references) >= 0.99 * len(who)
    assert all(who[r.element_id] == who[r.source_element_id] for r in references)


def test_someone_whose_nearest_clips_are_all_copies_gets_a_reference_from_another_video():
    desk = np.random.default_rng(5).integers(0, 256, (12, 18, 24), dtype=np.uint8)
    news = [f"n{n:02d}" for n in range(20)]
    elements = [e for n, c in enumerate(news) for e in person(c, like(like(ANNA, 50, 0.3), n, 0.1))]
    takes = [take(c, "news", start_s=60.0 * n, thumbs=desk) for n, c in enumerate(news)]
    elements += person("other", like(ANNA, 51, 0.3))
    found = retrieve(elements, [*takes, take("other")], top_k=4)
    assert {found[f"{c}/human/0"].source_clip_id for c in news} == {"other"}
    alone = retrieve(elements[:-2], takes, top_k=4)
    assert {alone[f"{c}/human/0"].reason for c in news} == {"only copies"}


def test_a_threshold_of_none_comes_from_the_card_and_an_unknown_model_is_named():
    elements = [*person("a", like(ANNA, 1, 0.1)), *person("b", like(ANNA, 2, 0.1))]
    found = retrieve(elements, [take("a"), take("b")], min_face=0.0)
    assert found["a/human/0"].rules[0].low == pytest.approx(0.93, abs=0.05)
    unknown = [replace(e, embedder="somebody's") for e in elements]
    with pytest.raises(ValueError, match="set min_face"):
        retrieve(unknown, [take("a"), take("b")], min_face=0.0)


@pytest.mark.parametrize("embedder", ["insightface:/weights", "openclip-embed:/weights"])
def test_weights_of_your_own_have_no_threshold_but_a_calibrated_one(embedder):
    elements = [
        *person("a", like(ANNA, 1, 0.1), embedder=embedder),
        *person("b", like(ANNA, 2, 0.1), embedder=embedder),
    ]
    with pytest.raises(
        ValueError, match=f"'{embedder}' has no measured threshold: run `a2data calibrate WORK`.*min_face"
    ):
        retrieve(elements, [take("a"), take("b")], min_face=0.0)
    calibrated = json.dumps({embedder: {"face": 0.8}})
    found = retrieve(elements, [take("a"), take("b")], min_face=0.0, calibrated=calibrated)
    assert found["a/human/0"].rules[0].low == 0.8


def test_embeddings_of_two_models_are_not_compared():
    elements = [*person("a", like(ANNA, 1)), *person("b", like(ANNA, 2), embedder="insightface:/w")]
    with pytest.raises(ValueError, match="cannot be compared"):
        retrieve(elements, [take("a"), take("b")])


def test_only_what_a_phrase_stands_for_and_its_parts_and_places_are_looked_for():
    elements = [*wearing("a", like(ANNA, 1), like(BERT, 1), "red"), look("a", "object", vector=like(BERT, 5))]
    looks = [
        table(EmbeddedElement, [e for e in elements if e.kind in kinds])
        for kinds in (("human", "object"), ("face",), ("upper",))
    ]
    tables = (
        table(Match, [Match("a", "a/human/0", "it", 0, 2, 1.0, 1.0)]),
        table(ClipThumbs, [take("a")]),
        *looks,
        table(EmbeddedElement, []),
    )
    rows = records(Retrieve(min_face=0.7, min_object=0.7).run(None, *tables, lookup=pictured(elements, [take("a")])))
    assert {r.key for r in rows} == {"a/human/0", "a/face/0", "a/upper/0"}


def test_an_identity_keeps_its_number_when_others_come():
    two = [*person("b", like(ANNA, 1)), *person("c", like(ANNA, 2))]
    three = [*person("a", like(BERT, 3)), *person("aa", like(BERT, 4)), *two]
    before = retrieve(two, [take("b"), take("c")])["c/human/0"]
    after = retrieve(three, [take(c) for c in ("a", "aa", "b", "c")])["c/human/0"]
    assert before.identity == after.identity < 2**53
    assert before.identity != retrieve(three, [take(c) for c in ("a", "aa", "b", "c")])["a/human/0"].identity


def test_videos_that_share_an_identity_are_one_component_however_far_the_chain():
    elements = [
        *person("a1", like(ANNA, 1)),
        *person("b1", like(ANNA, 2)),
        *person("b2", like(BERT, 3)),
        *person("c1", like(BERT, 4)),
        *person("d1", like(direction(3), 5)),
        *person("d2", like(direction(3), 6)),
    ]
    takes = [take(c, c[0], seed, 60.0 * seed) for seed, c in enumerate(("a1", "b1", "b2", "c1", "d1", "d2"))]
    found = retrieve(elements, takes)
    assert {found[f"{c}/human/0"].component for c in ("a1", "b1", "b2", "c1")} == {"a"}
    assert {found[f"{c}/human/0"].component for c in ("d1", "d2")} == {"d"}


def test_what_was_calibrated_comes_before_the_card_and_after_the_setting():
    elements = [*person("a", like(ANNA, 1)), *person("b", like(ANNA, 2))]
    takes, calibrated = [take("a"), take("b")], '{"dlib": {"face": 0.7}}'
    by_calibration = retrieve(elements, takes, min_face=0.0, calibrated=calibrated)["a/human/0"]
    assert {r.name: r.low for r in by_calibration.rules}["similarity"] == 0.7
    assert isinstance(retrieve(elements, takes, min_face=0.99, calibrated=calibrated)["a/human/0"], Reject)


def test_bodies_that_differ_part_two_faces_that_are_alike_but_only_within_a_video():
    def dressed(clip_id, face, body):
        human, seen = person(clip_id, face)
        return [replace(human, embedding=body), seen]

    elements = [*dressed("a", like(ANNA, 1), like(ANNA, 7)), *dressed("b", like(ANNA, 2), like(BERT, 8))]
    one = [take("a", "v", 1), take("b", "v", 2, start_s=60.0)]
    assert retrieve(elements, one)["a/human/0"].source_clip_id == "b"
    assert retrieve(elements, one, min_body_similarity=0.5)["a/human/0"].reason == "ambiguous identity"
    assert retrieve(elements, [take("a"), take("b")], min_body_similarity=0.5)["a/human/0"].source_clip_id == "b"


def test_a_thing_of_another_colour_is_another_thing_whatever_its_embedding():
    blue, green, teal = (
        look(c, "object", vector=like(ANNA, n), label="case", attributes=[f"colour={name}"])
        for n, (c, name) in enumerate([("a", "blue"), ("b", "red"), ("c", "cyan")])
    )
    found = retrieve([blue, green, teal], [take(c) for c in "abc"])
    assert found["a/object/0"].source_clip_id == "c"
    assert isinstance(found["b/object/0"], Reject)
