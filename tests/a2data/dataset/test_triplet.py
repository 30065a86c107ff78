import json
import math
from dataclasses import replace

import pytest

from a2data.dataset.triplet import (
    FORMAT,
    Origin,
    Place,
    ReferenceMeta,
    Triplet,
    TripletMeta,
    Unpaired,
    from_sample,
    mask_bytes,
    mask_text,
    to_members,
)
from a2data.records import Caption, Rule, Subject

PROMPT = "Ein Mädchen 👧 hält <eine Tasse>."
SUBJECT = Subject("Human", "", "", "holds a cup", "", "left", True, "Ein Mädchen 👧", 0, 13)
CAPTION = Caption("a-0", PROMPT, [SUBJECT], "medium_shot", "", "", "static", "", 0, 0, "", [])
ORIGIN = Origin(
    video_id="b",
    path="films/ü b.mkv",
    license="CC0",
    source="archive",
    clip_id="b-7",
    element_id="b-7/human/0",
    parent_id="",
    label="person",
    attributes=["colour=red"],
    frame=3,
    source_frame=9,
    pts_s=1.1,
    box=(1.0, 2.0, 30.5, 40.0),
    source_box=(2.0, 4.0, 61.0, 80.0),
    width=64,
    height=48,
    mask=mask_text(b"\x02\x02\x04"),
    score=0.9,
    quality=0.1 + 0.2,
    embedder="dlib",
    image_sha256="0123456789abcdef",
)
RULES = [Rule("margin", math.inf, 0.1, math.inf), Rule("overlap_s", -math.inf, -math.inf, 0.0)]
HERE = Place(1, 2, (5.0, 6.0, 20.0, 30.0), (5.0, 10.0, 20.0, 34.0), mask_text(b"\x02\x02\x04"))
HUMAN = ReferenceMeta("ref0", "human", "Ein Mädchen 👧", 0, 13, "a-0/human/0", 4, 0.8, 0.2, False, RULES, ORIGIN, HERE)
PLACE = replace(HUMAN, name="bg", role="background", phrase="", start=0, end=0, rules=[])
FACTS = TripletMeta(
    clip_id="a-0",
    video_id="a",
    path="films/a.mkv",
    license="CC BY 4.0",
    source="somebody",
    label="",
    shot=2,
    frames=3,
    fps=15.0,
    width=64,
    height=48,
    crop=(0.0, 4.0, 64.0, 52.0),
    source_frames=[0, 2, 4],
    source_pts_s=[0.0, 1 / 15, 2 / 15],
    caption=CAPTION,
    references=[HUMAN, PLACE],
    unpaired=[Unpaired("a-0/object/0", "object", "eine Tasse", 20, 30, HERE)],
    made_by=["detect yolo11n-seg@1"],
)
TRIPLET = Triplet(FACTS, b"mp4", {"ref0": b"on white", "bg": b"place"}, {"ref0": b"cut out"})


def test_a_triplet_comes_back_as_it_went():
    assert from_sample(to_members(TRIPLET)) == TRIPLET
    assert from_sample({"__key__": "a-0", "__url__": "x.tar", **to_members(TRIPLET)}) == TRIPLET


def test_the_members_have_the_names_that_the_format_gives_them():
    assert set(to_members(TRIPLET)) == {"mp4", "json", "ref0.png", "ref0.rgba.png", "bg.png"}


def test_the_json_is_canonical_and_free_of_infinities():
    text = to_members(TRIPLET)["json"].decode()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == text
    assert data["prompt"] == PROMPT
    assert data["format"] == FORMAT


def test_phrases_still_stand_where_they_stood():
    data = json.loads(to_members(TRIPLET)["json"])
    for item in (*data["references"][:1], *data["unpaired"], *data["caption"]["subjects"]):
        assert data["prompt"][item["start"] : item["end"]] == item["phrase"] != ""


def test_a_sample_of_another_format_is_refused():
    members = to_members(TRIPLET)
    members["json"] = members["json"].replace(FORMAT.encode(), b"a2data-triplet/0")
    with pytest.raises(ValueError, match="this version reads 'a2data-triplet/2'"):
        from_sample(members)


def test_a_reference_without_its_picture_is_refused():
    with pytest.raises(ValueError, match="other pictures"):
        to_members(replace(TRIPLET, pictures={"ref0": b"on white"}))
    members = to_members(TRIPLET)
    del members["ref0.png"]
    with pytest.raises(KeyError, match="ref0"):
        from_sample(members)


def test_a_mask_is_text_in_json_and_bytes_again():
    assert mask_bytes(mask_text(bytes(range(256)))) == bytes(range(256))
