from types import SimpleNamespace

import numpy as np
import pytest

from a2data.media import images
from stages.retrieve import copies
from stages.retrieve.pictures import PICTURE_DTYPE, Pictures, background_distances

FRAME = (96, 128)


def element(name, side=40, at=(10, 20), light=1.0, stamped=True):
    """A square of soft noise in a frame; the first letter of its name is its clip, its last digit what it shows."""
    x, y = at
    rng = np.random.default_rng(int(name[-1]))
    rgb = np.kron(rng.integers(60, 250, (4, 4, 3)), np.ones((side // 4, side // 4, 1))) * light
    mask = np.zeros(FRAME, bool)
    mask[y : y + side, x : x + side] = True
    box = (float(x), float(y), float(x + side), float(y + side))
    frame = np.zeros((*FRAME, 3), np.uint8)
    frame[y : y + side, x : x + side] = rgb
    cut = images.cut_out(frame, mask, box)
    pictures = {"image": images.to_png(cut), "stamp": images.stamp(cut) if stamped else b""}
    return SimpleNamespace(element_id=name, frame=0, box=box, mask=images.to_rle(mask), **pictures)


ROWS = ("a1", "b1", "b2", "c1", "c2", "d3", "gone4")
THUMBS = {c: np.random.default_rng(n).integers(0, 256, (18, 24), dtype=np.uint8) for n, c in enumerate("abcd")}


def pictures(elements, thumbs=THUMBS, kind="human"):
    """Pictures of the corpus ROWS, a1 of which is in shard 3 and the others in 7, and the list of what is read."""
    asked = []

    def lookup(stage, shard, column, values, record=None):
        asked.append((stage, shard))
        return {e.element_id: e for e in elements if e.element_id in values}

    corpus = SimpleNamespace(
        shards=np.array([3, *[7] * 6]),
        kinds=[kind],
        kind=np.zeros(7, np.int8),
        text=lambda name, rows: [ROWS[row] for row in rows],
    )
    clips = np.array(["abcdg".index(name[0]) for name in ROWS])
    footage = SimpleNamespace(thumb=lambda clip, frame: thumbs["abcdg"[clip]].ravel())
    return Pictures(corpus, footage, clips, lookup), asked


def parts(target, source, thumbs=THUMBS, kind="human"):
    found, asked = pictures([target, source], thumbs, kind)
    rows = np.array([[ROWS.index(target.element_id)], [ROWS.index(source.element_id)]])
    found.spool(rows)
    found.read(rows)
    return copies.CopyDistances(0.4, *found.compare(*rows)[0], 12.0), asked


def test_each_part_measures_its_own_difference():
    same, asked = parts(element("a1"), element("b1"), {c: THUMBS["a"] for c in "ab"})
    assert max(same.pixels, same.pose, same.scale, same.light, same.place) < 1e-3
    assert asked == [("detect", 3), ("detect", 7)]  # each in the shard that it is in

    assert parts(element("a1"), element("b2"))[0].pixels > 0.3
    assert parts(element("a1"), element("b1", side=80, at=(40, 8)))[0].scale == pytest.approx(1.0, abs=1e-3)
    assert parts(element("a1"), element("b1", light=0.5))[0].light > 0.15
    assert parts(element("a1"), element("b1"))[0].place > 0.2
    assert parts(element("a1"), element("b1"), kind="background")[0].place == 0


def test_rows_of_earlier_versions_are_compared_by_their_pictures():
    now, asked = parts(element("a1"), element("b2"))
    earlier, read = parts(element("a1", stamped=False), element("b2", stamped=False))
    assert earlier == now
    assert len(read) == 2 * len(asked)


def test_a_picture_is_read_once_and_kept_until_it_is_of_no_further_use():
    elements = [element(name) for name in ("a1", "b1", "c2", "d3")]
    found, asked = pictures(elements)
    found.spool(np.array([0, 1, 4, 1]))
    found.spool(np.array([0, 1, 5]))
    assert asked == [("detect", 7), ("detect", 3), ("detect", 7)] or asked == [
        ("detect", 3),
        ("detect", 7),
        ("detect", 7),
    ]
    found.read(np.array([0, 5]))
    assert found.rows.tolist() == [0, 5]
    with pytest.raises(ValueError, match=r"gone4 is not in shard 7, .*: run retrieve again"):
        found.spool(np.array([6]))


def test_surroundings_are_compared_where_neither_box_is():
    rng = np.random.default_rng(1)
    shapes = np.zeros(4, PICTURE_DTYPE)
    fractions = np.sort(rng.uniform(0, 1, (4, 2, 2)), axis=1).reshape(4, 4)
    shapes["box"], shapes["height"], shapes["width"] = fractions * 64, 64, 64
    shapes["thumb"] = rng.integers(0, 256, shapes["thumb"].shape)
    found, free = background_distances(shapes, shapes), []
    for x0, y0, x1, y1 in fractions:
        free.append(np.ones((18, 24), bool))
        free[-1][int(y0 * 18) : int(np.ceil(y1 * 18)), int(x0 * 24) : int(np.ceil(x1 * 24))] = False
    for i, a in enumerate(shapes["thumb"] / 255.0):
        for j, b in enumerate(shapes["thumb"] / 255.0):
            difference = ((a - b) ** 2)[(free[i] & free[j]).ravel()]
            assert found[i, j] == pytest.approx(np.sqrt(difference.mean()) if difference.size else 0.0)
    everywhere = shapes[:1].copy()
    everywhere["box"] = 0, 0, 64, 64
    assert background_distances(everywhere, shapes).tolist() == [[0.0] * 4]
