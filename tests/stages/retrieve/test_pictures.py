from types import SimpleNamespace

import numpy as np
import pytest

from a2data.media import images
from a2data.records import Reference
from stages.retrieve.pictures import Shown

FRAME = (96, 128)


def element(name, side=40, at=(10, 20), light=1.0):
    """A square of soft noise in a frame; the first letter of its name is its clip, its last digit what it shows."""
    x, y = at
    rng = np.random.default_rng(int(name[-1]))
    rgb = np.kron(rng.integers(60, 250, (4, 4, 3)), np.ones((side // 4, side // 4, 1))) * light
    mask = np.zeros(FRAME, bool)
    mask[y : y + side, x : x + side] = True
    box = (float(x), float(y), float(x + side), float(y + side))
    frame = np.zeros((*FRAME, 3), np.uint8)
    frame[y : y + side, x : x + side] = rgb
    png = images.to_png(images.cut_out(frame, mask, box))
    return SimpleNamespace(clip_id=name[0], element_id=name, frame=0, box=box, mask=images.to_rle(mask), image=png)


def shown(elements, thumbs):
    asked = []

    def lookup(stage, shard, column, values):
        asked.append((stage, shard))
        return {e.element_id: e for e in elements if e.element_id in values}

    corpus = SimpleNamespace(shards=np.array([3]))
    footage = SimpleNamespace(pictures=lambda clip: thumbs[clip][None])
    return Shown(corpus, footage, lookup), asked


def reference(target, source):
    return Reference(
        target[0], target, "human", 1, 7, source[0], source, "", 0.9, 0.0, [], thumbnail_distance=0.4, gap_s=12.0
    )


THUMBS = {c: np.random.default_rng(n).integers(0, 256, (18, 24), dtype=np.uint8) for n, c in enumerate("abcd")}


def parts(target, source, thumbs=THUMBS):
    found, asked = shown([target, source], thumbs)
    trait = SimpleNamespace(kind="human", element_id=target.element_id)
    return found.parts(0, trait, reference(target.element_id, source.element_id)), asked


def test_each_part_measures_its_own_difference():
    same, asked = parts(element("a1"), element("b1"), {c: THUMBS["a"] for c in "ab"})
    assert max(same.pixels, same.pose, same.scale, same.light, same.place) < 1e-3
    assert (same.frames, same.gap_s) == (0.4, 12.0)
    assert asked == [("detect", 3), ("detect", 7)]  # each in the shard that it is in

    assert parts(element("a1"), element("b2"))[0].pixels > 0.3
    assert parts(element("a1"), element("b1", side=80, at=(40, 8)))[0].scale == pytest.approx(1.0, abs=1e-3)
    assert parts(element("a1"), element("b1", light=0.5))[0].light > 0.15
    assert parts(element("a1"), element("b1"))[0].place > 0.2


def test_a_picture_is_read_once_however_often_it_is_compared():
    found, asked = shown([element("a1"), element("b1"), element("c1")], THUMBS)
    trait = SimpleNamespace(kind="human", element_id="a1")
    for source in ("b1", "c1", "b1", "c1"):
        found.parts(0, trait, reference("a1", source))
    assert len(asked) == 3


def test_one_that_is_gone_is_named():
    found, _ = shown([element("a1")], THUMBS)
    with pytest.raises(ValueError, match=r"b1 is not in shard 7, .*: run retrieve again"):
        found.parts(0, SimpleNamespace(kind="human", element_id="a1"), reference("a1", "b1"))


def test_pictures_of_a_shard_are_read_together_once_and_those_of_no_further_use_are_forgotten():
    elements = [element(name) for name in ("a1", "b1", "c2", "d3")]
    found, asked = shown(elements, THUMBS)
    first = [("human", "a1", 3), ("human", "b1", 7), ("human", "c2", 7)]
    found.read(first)
    assert sorted(asked) == [("detect", 3), ("detect", 7)]
    found.read([*first[:2], ("human", "d3", 7)])
    assert asked[2:] == [("detect", 7)]
    assert {name for _, name, _ in found.known} == {"a1", "b1", "d3"}
    with pytest.raises(ValueError, match="e4 is not in shard 7"):
        found.read([("human", "e4", 7)])
