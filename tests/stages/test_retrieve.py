from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2data import images
from a2data.arrow import to_table
from a2data.records import Element, Look, Match, Reference, Reject, Take
from stages.retrieve import Retrieve

D = 32


def direction(*seed):
    x = np.random.default_rng(seed).normal(size=D)
    return x / np.linalg.norm(x)


def like(x, seed, noise=0.4):
    """A unit vector near x; two of the same x have a cosine of about 1 / (1 + noise ** 2)."""
    y = x + noise * direction(seed, 1)
    return (y / np.linalg.norm(y)).astype(np.float32)


def take(clip_id, video_id="", seed=None, start_s=0.0, thumbs=None):
    if thumbs is None:
        rng = np.random.default_rng([7, seed if seed is not None else int.from_bytes(clip_id.encode(), "big")])
        thumbs = rng.integers(0, 256, (12, 18, 24), dtype=np.uint8)
    return Take(clip_id, video_id or clip_id, [start_s + n / 15 for n in range(len(thumbs))], thumbs.tobytes())


def look(clip_id, kind, number=0, vector=(), parent="", label="", embedder="dlib", frames=(0, 5, 10), **more):
    more = {"frame": 5, "quality": 0.5, "attributes": []} | more
    return Look(
        clip_id=clip_id,
        element_id=f"{clip_id}/{kind}/{number}",
        kind=kind,
        label=label or kind,
        parent_id=parent,
        image_sha256=f"sha of {clip_id}/{kind}/{number}",
        embedder=embedder,
        seen_frames=list(frames),
        embedding=vector,
        **more,
    )


def person(clip_id, face, number=0, **more):
    """A human and the face that belongs to it."""
    human = look(clip_id, "human", number, **more)
    return [human, look(clip_id, "face", number, face, human.element_id, **more)]


def table(record, rows, shard=0):
    out = to_table(record, rows)
    return out.append_column(pa.field("shard", pa.int32()), pa.array([shard] * len(rows), pa.int32()))


def picture(seed, height=24, width=24, seen=20):
    """A cut-out of its own, whose mask is an ellipse."""
    rgb = cv2.resize(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8), (width, height))
    mask = cv2.ellipse(
        np.zeros((height, width), np.uint8), (width // 2, height // 2), (seen // 2, 11), 0, 0, 360, 1, -1
    )
    return images.cut_out(rgb, mask > 0, (0, 0, width, height))


def halved(rgba):
    """Its right half is behind something."""
    out = rgba.copy()
    out[:, 12:, 3] = 0
    return out


def pictured(elements, pictures):
    """Their rows in any table, as a stage that borrows reads them; pictures: element_id -> RGBA."""

    def lookup(stage, shard, column, values):
        return {e.element_id: element(e) for e in elements if e.element_id in values}

    def element(look):
        rgba = pictures.get(look.element_id, picture(list(look.element_id.encode())))
        mask = np.zeros((48, 64), bool)
        mask[4 : 4 + len(rgba), 8 : 8 + rgba.shape[1]] = rgba[..., 3] > 0
        known = {name: getattr(look, name) for name in Look.__dataclass_fields__}
        box = (8.0, 4.0, 8.0 + rgba.shape[1], 4.0 + len(rgba))
        seen = {"seen_boxes": [box], "box": box, "score": 1.0}
        return Element(**known | seen | {"mask": images.to_rle(mask), "image": images.to_png(rgba)})

    return lookup


def retrieve(elements, takes, order=None, pictures=None, **settings):
    """Every element of the given is asked for; settings default to thresholds that suit the vectors of these tests."""
    settings = {"min_face": 0.7, "min_object": 0.7, "min_part": 0.7, "min_background": 0.7} | settings
    matches = [Match(e.clip_id, e.element_id, "it", 0, 2, 1.0, 1.0) for e in elements]
    of = {"detect": ("human", "object"), "faces": ("face",), "background": ("background",)}
    kinds = [of["detect"], of["faces"], ("upper", "lower", "hair", "shoes", "accessory"), of["background"], ()]
    looks = [table(Look, [e for e in elements if e.kind in kind]) for kind in kinds]
    lookup = pictured(elements, pictures or {})
    rows = list(Retrieve(**settings).run(None, table(Match, matches), table(Take, takes), *looks, lookup=lookup))
    assert len({r.element_id if isinstance(r, Reference) else r.key for r in rows}) == len(elements)
    return {r.element_id if isinstance(r, Reference) else r.key: r for r in rows}


ANNA, BERT = direction(1), direction(2)


def test_a_person_is_found_in_the_other_clip_that_shows_them():
    elements = [*person("a", like(ANNA, 1)), *person("b", like(ANNA, 2)), *person("c", like(BERT, 3))]
    found = retrieve(elements, [take("a"), take("b"), take("c")])
    assert found["a/human/0"].source_element_id == "b/human/0"
    assert found["a/face/0"].source_element_id == "b/face/0"
    assert found["a/human/0"].image_sha256 == "sha of b/human/0"
    assert found["a/human/0"].identity == found["b/face/0"].identity
    reject = found["c/human/0"]
    assert reject == Reject("c/human/0", "no other clip shows it", reject.detail)
    assert reject.detail.startswith("b/human/0: similarity = 0.235, allowed 0.7 to inf: FAIL")


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
                table(Look, [e for e in elements if e.kind == kind and e.clip_id == clip], shard)
                for clip, shard in (("a", 4), ("b", 9))
            ]
        )
        for kind in ("human", "face", "hair", "background")
    ]
    matches = table(Match, [Match("a", "a/human/0", "it", 0, 2, 1.0, 1.0)])
    rows = list(
        Retrieve(min_face=0.7).run(
            None, matches, table(Take, [take("a"), take("b")]), *looks, lookup=pictured(elements, {})
        )
    )
    assert {(r.element_id, r.source_shard) for r in rows} == {("a/human/0", 9), ("a/face/0", 9)}


def test_a_face_without_an_embedding_identifies_nobody():
    elements = [*person("a", []), *person("b", like(ANNA, 2))]
    found = retrieve(elements, [take("a"), take("b")])
    assert found["a/human/0"].reason == found["a/face/0"].reason == "no identity"


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


def test_the_same_picture_of_somebody_is_refused_by_its_embedding():
    elements = [*person("a", like(ANNA, 1)), *person("b", like(ANNA, 1))]
    assert retrieve(elements, [take("a"), take("b")])["a/human/0"].reason == "only copies"


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


def wearing(clip_id, face, garment, colour):
    human, seen = person(clip_id, face)
    return [
        human,
        seen,
        look(clip_id, "upper", vector=garment, parent=human.element_id, attributes=[f"colour={colour}"]),
    ]


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


def test_a_place_is_found_in_another_clip_of_it():
    room, street = direction(11), direction(12)
    elements = [
        look(c, "background", vector=like(v, n), embedder="mobilenetv2")
        for n, (c, v) in enumerate([("a", room), ("b", room), ("c", street)])
    ]
    found = retrieve(elements, [take(c) for c in "abc"])
    assert found["a/background/0"].source_clip_id == "b"
    assert isinstance(found["c/background/0"], Reject)


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
    looks = [table(Look, [e for e in elements if e.kind == kind]) for kind in ("human", "face", "hair", "background")]
    matches = table(Match, [Match("a", "a/human/0", "it", 0, 2, 1.0, 1.0)])
    takes = table(Take, [take("a"), take("b"), take("c")])
    rows = list(
        Retrieve(min_face=0.7, max_references=3).run(None, matches, takes, *looks, lookup=pictured(elements, {}))
    )
    assert sorted(r.source_clip_id for r in rows if r.kind == "human") == ["b", "c"]


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(random):
    elements = [e for n, c in enumerate("abcdef") for e in person(c, like(ANNA if n % 2 else BERT, n, 0.6))]
    takes = [take(c) for c in "abcdef"]
    expected = retrieve(elements, takes)
    random.shuffle(elements)
    random.shuffle(takes)
    assert retrieve(elements, takes) == expected


@settings(max_examples=15, deadline=None)
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


def test_a_threshold_of_none_comes_from_the_card_and_an_unknown_model_is_named():
    elements = [*person("a", like(ANNA, 1, 0.1)), *person("b", like(ANNA, 2, 0.1))]
    found = retrieve(elements, [take("a"), take("b")], min_face=0.0)
    assert found["a/human/0"].rules[0].low == pytest.approx(0.93, abs=0.05)
    unknown = [replace(e, embedder="somebody's") for e in elements]
    with pytest.raises(ValueError, match="set min_face"):
        retrieve(unknown, [take("a"), take("b")], min_face=0.0)


def test_embeddings_of_two_models_are_not_compared():
    elements = [*person("a", like(ANNA, 1)), *person("b", like(ANNA, 2), embedder="insightface:/w")]
    with pytest.raises(ValueError, match="cannot be compared"):
        retrieve(elements, [take("a"), take("b")])


def test_only_what_a_phrase_stands_for_and_its_parts_and_places_are_looked_for():
    elements = [*wearing("a", like(ANNA, 1), like(BERT, 1), "red"), look("a", "object", vector=like(BERT, 5))]
    looks = [
        table(Look, [e for e in elements if e.kind in kinds]) for kinds in (("human", "object"), ("face",), ("upper",))
    ]
    tables = (
        table(Match, [Match("a", "a/human/0", "it", 0, 2, 1.0, 1.0)]),
        table(Take, [take("a")]),
        *looks,
        table(Look, []),
    )
    rows = Retrieve(min_face=0.7, min_object=0.7).run(None, *tables, lookup=pictured(elements, {}))
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
    assert retrieve(elements, one, different_body=0.5)["a/human/0"].reason == "ambiguous identity"
    assert retrieve(elements, [take("a"), take("b")], different_body=0.5)["a/human/0"].source_clip_id == "b"


def test_the_parts_of_the_copy_risk_are_columns_and_the_more_alike_picture_is_the_riskier():
    same = like(ANNA, 2)
    elements = [*person("a", like(ANNA, 1)), *person("b", same), *person("c", same)]
    shown = {"a/human/0": picture(1), "b/human/0": picture(2), "c/human/0": halved(picture(1))}
    found = retrieve(elements[:4], [take(c) for c in "ab"], pictures=shown)["a/human/0"]
    chosen = retrieve(elements, [take(c) for c in "abc"], pictures=shown)["a/human/0"]
    shown["b/human/0"] = halved(picture(1))
    near = retrieve(elements[:4], [take(c) for c in "ab"], pictures=shown)["a/human/0"]

    assert chosen.source_clip_id == found.source_clip_id == "b"
    assert near.pixels_apart < found.pixels_apart
    assert near.copy_risk > found.copy_risk
    assert found.pose_apart == 0
    assert near.pose_apart > 0.1
    assert found.frames_apart == {r.name: r.value for r in found.rules}["picture_distance"]
    assert found.gap_s == float("inf")
    assert near.scale_apart == pytest.approx(np.log2(2**0.5), abs=0.1)


def test_a_cropped_copy_that_thumbnails_miss_is_told_by_its_subject():
    elements = [*person("a", like(ANNA, 1)), *person("b", like(ANNA, 2))]
    shown = {"a/human/0": picture(1), "b/human/0": picture(1)}
    cropped = [take("a", seed=1), take("b", seed=2)]
    risky = retrieve(elements, cropped, pictures=shown)["a/human/0"].copy_risk
    refused = retrieve(elements, cropped, pictures=shown, max_copy_risk=0.3)["a/human/0"]

    assert risky > 0.4
    assert refused.reason == "only copies"
    assert "copy_risk" in refused.detail


def test_a_thing_of_another_colour_is_another_thing_whatever_its_embedding():
    blue, green, teal = (
        look(c, "object", vector=like(ANNA, n), label="case", attributes=[f"colour={name}"])
        for n, (c, name) in enumerate([("a", "blue"), ("b", "red"), ("c", "cyan")])
    )
    found = retrieve([blue, green, teal], [take(c) for c in "abc"])
    assert found["a/object/0"].source_clip_id == "c"
    assert isinstance(found["b/object/0"], Reject)


def test_the_second_of_several_references_is_unlike_the_first():
    first = np.random.default_rng(5).integers(0, 256, (12, 18, 24), dtype=np.uint8)
    again = np.clip(first * 0.9 + 20, 0, 255).astype(np.uint8)
    elements = [
        *person("a", like(ANNA, 1)),
        *(e for n, c in enumerate("bcd") for e in person(c, like(ANNA, 2 + n, 0.2))),
    ]
    looks = [table(Look, [e for e in elements if e.kind == kind]) for kind in ("human", "face", "hair", "background")]
    for pair in ("bc", "bd", "cd"):  # two of one footage: never both
        takes = [take(c, thumbs={pair[0]: first, pair[1]: again}.get(c)) for c in "abcd"]
        tables = table(Match, [Match("a", "a/human/0", "it", 0, 2, 1.0, 1.0)]), table(Take, takes), *looks
        rows = Retrieve(min_face=0.7, max_references=2).run(None, *tables, lookup=pictured(elements, {}))
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
