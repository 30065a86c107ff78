"""The audit: each planted fault is named, and a set without faults is not accused."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from a2data.dataset.triplet import Location, Origin, ReferenceMeta, Triplet, TripletMeta
from a2data.media import coco_rle, images, video
from a2data.media.coco_rle import NO_MASK
from a2data.records import Caption
from a2data.store.folder import Folder
from benchmarks.audit_faults import pack
from pipelines.corpus import audit

SIDE, HEIGHT, WIDTH = 48, 96, 128
WHOLE = (0.0, 0.0, float(WIDTH), float(HEIGHT))
PROMPT = "A striped ball rolls over a grey floor, take {}."


def ball(seed: int) -> np.ndarray:
    """A round cut-out with a texture of its own, RGBA."""
    rough = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    inside = np.where(x**2 + y**2 < (SIDE / 2) ** 2, 255, 0).astype(np.uint8)
    return np.dstack([cv2.resize(rough, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), inside])


def sample(number: int, cut_out: np.ndarray | None = None, prompt: str = "", role: str = "object") -> Triplet:
    """A clip of ball `number` in the middle, whose reference is another ball."""
    key, drawn = f"clip{number}-00000000", ball(number)
    frame = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    place = frame[20 : 20 + SIDE, 40 : 40 + SIDE]
    place[drawn[..., 3] > 0] = drawn[..., :3][drawn[..., 3] > 0]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[20 : 20 + SIDE, 40 : 40 + SIDE] = drawn[..., 3] > 0
    box = (40.0, 20.0, 40.0 + SIDE, 20.0 + SIDE)
    origin = Origin(
        "v", "v.mp4", "CC0", "", "other", "e", "", "ball", [], 0, 0, 0.0, box, box, WIDTH, HEIGHT, NO_MASK, 1, 1, "", ""
    )
    target = Location(0, 0, box, box, coco_rle.encode(mask))
    prompt = prompt or PROMPT.format(number)
    phrase = "A striped ball"
    given = ReferenceMeta("ref0", role, phrase, 0, len(phrase), "e", 1, 0.9, 0.1, False, [], origin, target)
    facts = TripletMeta(
        *(key, "v", "v.mp4", "CC0", "", "", 0, 2, 15.0, WIDTH, HEIGHT, WHOLE, [0, 1], [0.0, 1 / 15]),
        *(Caption(key, prompt, [], "", "", "", "", "", 0, 0, "", []), [given], [], []),
    )
    shown = ball(number + 100) if cut_out is None else cut_out
    flat = images.to_png(images.on_white(shown))
    return Triplet(facts, video.encode([frame, frame], 15.0, crf=6), {"ref0": flat}, {"ref0": images.to_png(shown)})


class Face(NamedTuple):
    box: tuple
    embedding: np.ndarray


def faces_by_colour(picture: np.ndarray) -> list[Face]:
    """One face over the coloured part of a picture, recognised by its mean colour."""
    inside = np.ptp(picture.astype(int), axis=2) > 30
    look = picture[inside].mean(0) - 128
    return [Face(images.bounds(inside), look / np.linalg.norm(look))]


def found(tmp_path: Path, *triplets: Triplet, faces=None) -> audit.Audit:
    pack(tmp_path, sorted(triplets, key=lambda t: t.facts.clip_id))
    return audit.audit(Folder(tmp_path), faces, 0.5)


def faults(tmp_path: Path, *triplets: Triplet, faces=None) -> list[tuple[str, str]]:
    return [(each.clip_id[:5], each.fault) for each in found(tmp_path, *triplets, faces=faces).findings]


def test_a_set_without_faults_is_not_accused(tmp_path):
    assert faults(tmp_path, sample(0), sample(1), sample(2)) == []


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_copy_that_was_scaled_brightened_and_mirrored_is_named(tmp_path, mirrored):
    copy = cv2.resize(ball(1), (40, 40), interpolation=cv2.INTER_AREA)
    copy[..., :3] = (255 * (copy[..., :3] / 255) ** 0.9).astype(np.uint8)
    assert faults(tmp_path, sample(0), sample(1, copy[:, ::-1] if mirrored else copy)) == [
        ("clip1", "copy of its target")
    ]


def test_another_person_is_named_and_lowers_the_identity_precision(tmp_path):
    def dressed(number: int, colour: tuple[int, int, int]) -> np.ndarray:
        made = ball(number).copy()
        made[..., :3] = made[..., :3] // 8 + np.array(colour, np.uint8)
        return made

    def of(number: int, target: tuple, reference: tuple) -> Triplet:
        made = sample(number, dressed(number + 100, reference), role="human")
        frame = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
        frame[20 : 20 + SIDE, 40 : 40 + SIDE] = dressed(number, target)[..., :3]
        return replace(made, video=video.encode([frame, frame], 15.0, crf=6))

    red, green = (200, 20, 20), (20, 200, 20)
    result = found(tmp_path, of(0, red, red), of(1, red, green), faces=faces_by_colour)
    assert (result.same_person, result.compared_faces) == (1, 2)
    assert [(e.clip_id[:5], e.fault) for e in result.findings if e.fault == "another person"] == [
        ("clip1", "another person")
    ]
    assert "identity precision 0.500: 1 of 2" in audit.format_audit(result)


def test_a_mask_that_is_its_box_and_one_in_pieces_are_named(tmp_path):
    boxed, torn = ball(101).copy(), ball(102).copy()
    boxed[..., 3] = 255
    torn[:, 16:32, 3] = 0
    assert faults(tmp_path, sample(0), sample(1, boxed), sample(2, torn)) == [
        ("clip1", "doubtful mask"),
        ("clip2", "doubtful mask"),
    ]


def test_a_caption_of_something_else_is_named(tmp_path):
    prompt = "Waves roll over a beach in the evening light."
    assert faults(tmp_path, sample(0), sample(1, prompt=prompt)) == [("clip1", "not in the caption")]


def test_a_blank_picture_is_named(tmp_path):
    blank = ball(101).copy()
    blank[..., :3] = 90
    assert faults(tmp_path, sample(0), sample(1, blank)) == [("clip1", "blank or tiny")]


def test_captions_that_are_repeated_or_short_are_named(tmp_path):
    same = [sample(n, prompt="A striped ball rolls over a floor.") for n in (0, 1)]
    assert faults(tmp_path, *same, sample(2, prompt="A striped ball")) == [
        ("clip1", "caption repeated"),
        ("clip2", "caption too short"),
    ]


def test_a_sample_that_cannot_be_read_is_named(tmp_path):
    pack(tmp_path, [replace(sample(0), video=b"not a video")])
    (finding,) = audit.audit(Folder(tmp_path), None, 0.5).findings
    assert (finding.clip_id, finding.fault) == ("clip0-00000000", "unreadable")
