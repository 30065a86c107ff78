import io
import json
import math
import zipfile
from dataclasses import replace

import pytest

from a2data.dataset.triplet import (
    FORMAT,
    NO_PICTURE,
    Location,
    Origin,
    ReferenceMeta,
    Triplet,
    TripletMeta,
    Unpaired,
    caption_variants,
    from_sample,
    to_facts,
    to_json,
    to_members,
)
from a2data.media.coco_rle import Rle
from a2data.media.images import from_png
from a2data.records import Caption, Rule, Sound, Span, Subject

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
    mask=Rle((2, 2), "4"),
    score=0.9,
    quality=0.1 + 0.2,
    embedder="dlib",
    image_sha256="0123456789abcdef",
)
RULES = [Rule("margin", math.inf, 0.1, math.inf), Rule("overlap_s", -math.inf, -math.inf, 0.0)]
HERE = Location(1, 2, (5.0, 6.0, 20.0, 30.0), (5.0, 10.0, 20.0, 34.0), Rle((2, 2), "4"))
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


def test_a_sample_packed_before_sound_was_kept_has_none():
    data = json.loads(to_json(FACTS))
    assert data.pop("sound")["duration_s"] == 0
    assert to_facts(json.dumps(data).encode()) == FACTS


def test_the_sound_comes_back_as_it_went():
    facts = replace(FACTS, sound=Sound("a-0", 2.0, -23.0, -6.0, 0.25, 0.5, [Span(0.1, 0.4), Span(1.0, 1.7)], ""))
    assert to_facts(to_json(facts)) == facts


def test_a_structured_caption_gives_several_and_old_samples_have_none():
    given = {each.name: each.text for each in caption_variants(CAPTION)}
    assert given["long"] == CAPTION.prompt
    assert given["short"].startswith(CAPTION.subjects[0].phrase)
    assert json.loads(given["structured"])["subjects"][0]["type"] == CAPTION.subjects[0].type
    facts = replace(FACTS, captions=caption_variants(CAPTION))
    assert to_facts(to_json(facts)) == facts
    old = json.loads(to_json(facts))
    del old["captions"]
    assert to_facts(json.dumps(old).encode()) == FACTS


def test_every_sample_has_the_same_members_whatever_its_references():
    every = {"mp4", "json", "bg.png", "cutouts.zip", *(f"ref{n}.png" for n in range(8))}
    alone = Triplet(replace(FACTS, references=[PLACE]), b"mp4", {"bg": b"place"}, {})
    assert set(to_members(TRIPLET)) == set(to_members(alone)) == every
    assert from_sample(to_members(alone)) == alone


def test_a_slot_without_a_reference_has_a_picture_of_one_pixel():
    members = to_members(TRIPLET)
    assert members["ref1.png"] == NO_PICTURE
    assert from_png(NO_PICTURE).tolist() == [[[255, 255, 255]]]


def test_the_cut_outs_are_an_archive_of_their_pictures():
    with zipfile.ZipFile(io.BytesIO(to_members(TRIPLET)["cutouts.zip"])) as archive:
        assert {entry.filename: archive.read(entry) for entry in archive.infolist()} == {"ref0.png": b"cut out"}


def zipped(how, name="ref0.png"):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", how) as archive:
        archive.writestr(name, bytes(1 << 20))
    return data.getvalue()


@pytest.mark.parametrize("data", [b"", b"PK", zipped(zipfile.ZIP_DEFLATED), zipped(zipfile.ZIP_LZMA)])
def test_an_archive_that_is_damaged_or_compressed_is_refused(data):
    with pytest.raises(ValueError, match=r"sample 'a-0' .*\.cutouts\.zip"):
        from_sample(to_members(TRIPLET) | {"cutouts.zip": data})


def test_an_archive_that_lacks_a_cut_out_is_refused():
    with pytest.raises(KeyError, match="ref0"):
        from_sample(to_members(TRIPLET) | {"cutouts.zip": zipped(zipfile.ZIP_STORED, "ref1.png")})


def test_a_reference_without_a_slot_is_refused():
    with pytest.raises(ValueError, match="ref0, but only 0 slots"):
        to_members(TRIPLET, slots=0)


def test_the_json_is_canonical():
    text = to_members(TRIPLET)["json"].decode()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not valid JSON"))
    assert json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == text
    assert data["prompt"] == PROMPT
    assert data["format"] == FORMAT


def types(value, path=""):
    """The JSON type of every field, null and the lists' lengths aside."""
    if isinstance(value, dict):
        return {t for name, v in value.items() for t in types(v, f"{path}.{name}")}
    if isinstance(value, list):
        return {t for v in value for t in types(v, f"{path}[]")}
    return {(path, type(value).__name__)} if value is not None else set()


def test_every_field_has_one_type_in_every_sample():
    whole = replace(FACTS, fps=15, crop=(0, 0, 1, 1), references=[replace(HUMAN, similarity=1)])
    both = [json.loads(to_json(facts)) for facts in (FACTS, whole)]
    found = types(both)
    assert len({path for path, _ in found}) == len(found)


def test_infinities_are_null_and_come_back():
    told = json.loads(to_json(FACTS))["references"][0]["rules"]
    assert told == [
        {"name": "margin", "value": None, "low": 0.1, "high": None},
        {"name": "overlap_s", "value": None, "low": None, "high": 0.0},
    ]
    assert to_facts(to_json(FACTS)).references[0].rules == RULES


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_value_that_null_would_not_tell_is_refused(value):
    rule = Rule("outfit", value, -math.inf, math.inf)
    with pytest.raises(ValueError, match=r"outfit|not JSON compliant"):
        to_json(replace(FACTS, references=[replace(HUMAN, rules=[rule])]))


@pytest.mark.parametrize("change", [("value", "inf"), ("low", "0.1"), ("high", [])])
def test_a_bound_of_another_type_is_refused(change):
    data = json.loads(to_json(FACTS))
    data["references"][0]["rules"][0] |= dict([change])
    with pytest.raises((ValueError, TypeError)):
        to_facts(json.dumps(data).encode())


def test_phrases_still_stand_where_they_stood():
    data = json.loads(to_members(TRIPLET)["json"])
    for item in (*data["references"][:1], *data["unpaired"], *data["caption"]["subjects"]):
        assert data["prompt"][item["start"] : item["end"]] == item["phrase"] != ""


def test_a_sample_of_another_format_is_refused():
    members = to_members(TRIPLET)
    members["json"] = members["json"].replace(FORMAT.encode(), b"a2data-triplet/0")
    with pytest.raises(ValueError, match="this version reads a2data-triplet/2 and a2data-triplet/3"):
        from_sample(members)


def test_a_reference_without_its_picture_is_refused():
    with pytest.raises(ValueError, match="other pictures"):
        to_members(replace(TRIPLET, pictures={"ref0": b"on white"}))
    members = to_members(TRIPLET)
    del members["ref0.png"]
    with pytest.raises(KeyError, match="ref0"):
        from_sample(members)
