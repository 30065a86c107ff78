"""References that are not cut-outs are matted first, or reported."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_sampling import one

pytest.importorskip("diffusers")
from a2data.media import images


def test_a_thing_on_a_plain_table_is_cut_out_and_left_beside_the_video(studio):
    photo = np.full((120, 200, 3), (90, 110, 130), np.uint8)
    photo[40:80, 80:120] = (220, 30, 30)
    Image.fromarray(photo).save(studio / "photo.png")
    white = np.full((40, 40, 3), 255, np.uint8)
    white[10:30, 10:30] = 0
    Image.fromarray(white).save(studio / "woman.png")
    more = ["--ref", "object=photo.png", "--ref", "background=room.png", "--frames", "17"]
    assert one(*more, "--matting-model", "builtin-detect") == 0

    (cut,) = studio.glob("a-cut-*.png")
    alone = images.from_png(cut.read_bytes())
    assert (alone[45:75, 85:115] == (220, 30, 30)).all()
    assert (alone[:30] == 255).all()
    said = json.loads((studio / "a.json").read_text())
    assert [ref["file"] for ref in said["references"]] == ["woman.png", "photo.png", "room.png"]
    assert said["settings"]["matting_model"] == "builtin-detect"


def test_a_picture_without_a_detected_person_is_reported_before_anything_loads(studio, unloaded, capsys):
    Image.fromarray(np.full((60, 60, 3), 90, np.uint8)).save(studio / "woman.png")
    assert one("--matting-model", "builtin-detect") == 2
    said = capsys.readouterr().err
    assert "woman.png: no human was detected by builtin-detect. Use an image on a white" in said
