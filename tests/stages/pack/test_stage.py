import hashlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import webdataset

from a2data.dataset.triplet import from_sample
from a2data.media import coco_rle, images, video
from a2data.records import (
    Caption,
    ClipVideo,
    Element,
    ElementMeta,
    Failure,
    Kept,
    Match,
    Packed,
    Reference,
    Reject,
    Rule,
    Sound,
    Span,
    Video,
)
from stages.pack.facts import fetch_reference, in_source
from stages.pack.stage import Pack

H, W = 48, 64
PROMPT = "A person in red holds a ball in a room."


def draw(seed, colour, at):
    """A noisy room with an ellipse: its frame and mask."""
    frame = np.random.default_rng(seed).integers(0, 200, (H, W, 3), dtype=np.uint8)
    mask = np.zeros((H, W), np.uint8)
    cv2.ellipse(mask, at, (9, 14), 0, 0, 360, 1, -1)
    frame[mask > 0] = colour
    return frame, mask.astype(bool)


def film(clip_id, video_id, seed):
    frames = np.random.default_rng(seed).integers(0, 255, (3, H, W, 3), dtype=np.uint8)
    data = video.encode(frames, 15)
    facts = (clip_id, video_id, 0, 0, 9, "start", 15.0, W, H, [0, 2, 4], [0.5, 0.6, 0.7], (10.0, 20.0, 138.0, 116.0))
    return ClipVideo(*facts, 0.0, [0.5] * 3, [1.0] * 3, [0.0] * 3, images.thumbs(bytes(432 * 3)).tobytes(), data)


def element(clip_id, kind, seed, colour=(200, 30, 30), at=(30, 24), parent=""):
    frame, mask = draw(seed, colour, at)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    if kind == "background":
        box, mask = (0.0, 0.0, float(W), float(H)), np.ones((H, W), bool)
    png = images.to_png(images.cut_out(frame, mask, box))
    at_frame, sha = 1, images.sha16(png)
    return Element(
        clip_id, f"{clip_id}/{kind}/0", kind, kind, parent, at_frame, box, 0.9, images.to_rle(mask), png, sha, [], "dlib", 0.5,
        [0, 1], [box, box], ["colour=red"],
    )  # fmt: skip


ELEMENTS = {
    e.element_id: e
    for e in (
        element("v-1", "human", 1),
        element("v-1", "upper", 2, parent="v-1/human/0"),
        element("v-1", "object", 3),
        element("v-1", "background", 4),
        element("w-1", "human", 5, (30, 200, 30), (20, 20)),
        element("w-1", "upper", 6, (1, 2, 3), (40, 20), "w-1/human/0"),
        element("w-1", "object", 7, (9, 9, 250), (50, 30)),
        element("w-1", "background", 8),
        element("v-1", "face", 9, parent="v-1/human/0"),
        element("w-1", "face", 10, (30, 200, 30), (20, 20), "w-1/human/0"),
    )
}
FILMS = [film("v-1", "v", 1), film("w-1", "w", 2)]
VIDEOS = [
    Video(v, f"films/{v}.mp4", licence, "archive", "", 148, 136, 0, 30.0, 9.0, "h264", 0)
    for v, licence in (("v", "CC0"), ("w", "CC BY 4.0"))
]
SHARD_OF = {"v-1": 7, "w-1": 1, "v": 7, "w": 1}
STAGE = {"human": "detect", "object": "detect", "face": "faces", "upper": "parse", "background": "background"}


def lookup(stage, shard, column, values, record=None):
    """What the store would find: every row that lies in that shard and table."""
    if stage == "ingest":
        rows = VIDEOS
    elif stage == "segment":
        rows = FILMS
    else:
        rows = [e for e in ELEMENTS.values() if STAGE[e.kind] == stage]
    key = "video_id" if stage == "ingest" else "clip_id"
    found = {getattr(r, column): r for r in rows if SHARD_OF[getattr(r, key)] == shard}
    return {value: found[value] for value in values if value in found}


def paired(kind, number=0, risk=0.25):
    source = ELEMENTS[f"w-1/{kind}/0"]
    rules = [Rule("overlap_s", -np.inf, -np.inf, 0.0), Rule("similarity", 0.8, 0.7, 0.99)]
    ids = (f"v-1/{kind}/{number}", kind, 3, 1, "w-1", source.element_id, source.image_sha256)
    return Reference("v-1", *ids, 0.8, risk, rules)


def match(kind, phrase):
    start = PROMPT.index(phrase)
    return Match("v-1", f"v-1/{kind}/0", phrase, start, start + len(phrase), 1.0, 1.0)


SOUNDS = [Sound(film.clip_id, 0.2, -20.0, -6.0, 0.1, 0.5, [Span(0.1, 0.2)], "") for film in FILMS]
REFERENCES = [paired(kind) for kind in ("background", "upper", "object", "human")]
MATCHES = [match("human", "A person in red"), match("object", "a ball"), match("background", "a room")]


def pack(out, references=REFERENCES, matches=MATCHES, kept=("v-1",), reverse=False, find=lookup, **settings):
    caption = Caption("v-1", PROMPT, [], "", "", "", "", "", 0, 0, "", [])
    traits = [ElementMeta(**{n: getattr(e, n) for n in ElementMeta.__dataclass_fields__}) for e in ELEMENTS.values()]
    by_stage = [[t for t in traits if STAGE[t.kind] == s] for s in ("detect", "faces", "parse", "background", "ground")]
    rows = [[Kept(c, c[0]) for c in kept], list(references), FILMS, [caption], list(matches), VIDEOS, SOUNDS, *by_stage]
    rows = [r[::-1] for r in rows] if reverse else rows
    return list(Pack(out=str(out), **settings).run(None, *rows, shard=7, lookup=find))


def read(out):
    (tar,) = out.glob("00007-000-*.tar")
    return [from_sample(s) for s in webdataset.WebDataset(str(tar), shardshuffle=False)]


def test_webdataset_reads_the_triplet_and_every_reference_stands_for_its_words(tmp_path):
    (row,) = pack(tmp_path)
    (triplet,) = read(tmp_path)
    given = {g.name: g for g in triplet.facts.references}
    assert [(g.name, g.role, g.phrase) for g in given.values()] == [
        ("ref0", "human", "A person in red"),
        ("ref1", "object", "a ball"),
        ("ref2", "upper", "A person in red"),
        ("bg", "background", "a room"),
    ]
    assert all(triplet.prompt[g.start : g.end] == g.phrase for g in given.values())
    assert triplet.video == FILMS[0].video
    assert triplet.facts.sound == SOUNDS[0]
    assert row == Packed(
        "v-1", f"00007-000-{row.shard_sha256[:12]}.tar", row.shard_sha256, 0, row.bytes,
        ["bg.png", "cutouts.zip", "json", "mp4", *(f"ref{n}.png" for n in range(8))],
        3, H, W, 15.0, ["human", "object", "upper", "background"], "CC BY 4.0 AND CC0", 0.25,
    )  # fmt: skip


def test_a_drawn_element_is_found_again_at_its_place_to_the_pixel(tmp_path):
    pack(tmp_path)
    (triplet,) = read(tmp_path)
    frame, mask = draw(5, (30, 200, 30), (20, 20))
    expected = np.where(mask[..., None], frame, 255)
    np.testing.assert_array_equal(images.from_png(triplet.pictures["ref0"]), expected)
    origin = triplet.facts.references[0].origin
    np.testing.assert_array_equal(coco_rle.decode(origin.mask), mask)
    x0, y0, x1, y1 = (int(v) for v in origin.box)
    rgba = images.from_png(triplet.cut_outs["ref0"])
    np.testing.assert_array_equal(rgba[..., :3], frame[y0:y1, x0:x1])
    np.testing.assert_array_equal(rgba[..., 3] > 0, mask[y0:y1, x0:x1])


def test_the_provenance_leads_back_to_the_source_picture(tmp_path):
    pack(tmp_path, made_by="detect yolo@1; faces dlib@2")
    (triplet,) = read(tmp_path)
    origin = triplet.facts.references[0].origin
    assert (origin.path, origin.license, origin.clip_id) == ("films/w.mp4", "CC BY 4.0", "w-1")
    assert (origin.frame, origin.source_frame, origin.pts_s) == (1, 2, 0.6)
    assert origin.source_box == tuple(10 * (i % 2 == 0) + 20 * (i % 2) + 2 * v for i, v in enumerate(origin.box))
    assert triplet.facts.references[0].rules == paired("human").rules
    assert triplet.facts.made_by == ["detect yolo@1", "faces dlib@2"]


def test_a_box_in_the_source_is_scaled_and_moved_by_the_crop():
    clip = replace(FILMS[0], crop=(0.0, 100.0, 1920.0, 980.0), width=1048, height=480)
    x0, y0, x1, y1 = in_source((0.0, 0.0, 1048.0, 240.0), clip)
    assert (x0, y0, x1, y1) == pytest.approx((0, 100, 1920, 540))


def test_the_order_of_rows_does_not_change_a_byte(tmp_path):
    pack(tmp_path / "a")
    pack(tmp_path / "b", reverse=True)
    ((first,), (second,)) = ([*(tmp_path / name).glob("*.tar")] for name in "ab")
    assert first.name == second.name
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()


@pytest.mark.parametrize("references", [[], [paired("background")], [paired("upper"), paired("background")]])
def test_a_clip_none_of_whose_subjects_another_clip_shows_is_rejected(tmp_path, references):
    (reject,) = pack(tmp_path, references)
    assert (reject.key, reject.reason) == ("v-1", "no reference")
    assert "v-1/human/0 ('A person in red')" in reject.detail
    assert not list(tmp_path.glob("*.tar"))


def test_a_face_alone_makes_a_triplet_that_shows_its_person(tmp_path):
    pack(tmp_path / "a", [paired("face")], [match("human", "A person in red")], allow_unpaired_phrases=False)
    (triplet,) = read(tmp_path / "a")
    assert [(g.role, g.phrase) for g in triplet.facts.references] == [("face", "A person in red")]
    assert triplet.facts.unpaired == []
    (reject,) = pack(tmp_path / "b", [paired("face")], required_roles="human|object")
    assert reject.reason == "no reference"


def test_what_has_no_reference_is_listed_and_can_be_forbidden(tmp_path):
    pack(tmp_path, [paired("human")])
    (triplet,) = read(tmp_path)
    assert [u.phrase for u in triplet.facts.unpaired] == ["a ball", "a room"]
    (reject,) = pack(tmp_path, [paired("human")], allow_unpaired_phrases=False)
    assert reject == Reject("v-1", "not all paired", reject.detail)
    assert "a ball" in reject.detail


def test_a_clips_own_picture_is_used_only_where_allowed_and_is_marked(tmp_path):
    (row,) = pack(tmp_path, [paired("human")], allow_same_clip=True)
    (triplet,) = read(tmp_path)
    marked = {g.role: (g.same_clip, g.copy_risk, g.origin.clip_id) for g in triplet.facts.references}
    assert marked == {"human": (False, 0.25, "w-1"), "object": (True, 1.0, "v-1")}
    assert row.copy_risk == 1.0
    assert [u.phrase for u in triplet.facts.unpaired] == ["a room"]


def test_roles_choose_and_order_the_references(tmp_path):
    pack(tmp_path / "a", roles="object|human", max_references=2)
    assert [g.role for g in read(tmp_path / "a")[0].facts.references] == ["object", "human"]
    pack(tmp_path / "b", max_references=1)
    assert [g.name for g in read(tmp_path / "b")[0].facts.references] == ["ref0", "bg"]


def test_a_clip_whose_reference_has_changed_since_is_named_and_never_packed(tmp_path):
    stale = replace(REFERENCES[-1], image_sha256="of yesterday")
    why = "ValueError: w-1/human/0 changed after v-1/human/0 was paired with it: run retrieve again"

    assert pack(tmp_path, [stale]) == [Failure("v-1", why)]
    assert not list(tmp_path.glob("*"))


def test_a_clip_that_was_not_kept_or_has_no_caption_is_left_out(tmp_path):
    assert pack(tmp_path, kept=[]) == []
    assert pack(tmp_path, kept=["w-1"]) == []


def test_an_object_that_detect_does_not_know_is_taken_from_the_table_of_ground():
    def grounded(stage, *args):
        return {} if stage == "detect" else lookup("detect" if stage == "ground" else stage, *args)

    wanted = ELEMENTS["w-1/object/0"]
    key = ("v-1", "v-1/object/0", "object", 0, 1, "w-1", wanted.element_id, wanted.image_sha256)
    assert fetch_reference(Reference(*key, 0.9, 0.1, []), grounded)[0] == wanted
