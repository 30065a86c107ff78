from types import SimpleNamespace

import numpy as np
import pytest

from a2data.media import images
from stages.retrieve import copies
from stages.retrieve.pictures import Pictures, Shape, correlations, surroundings

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
    return copies.Parts(0.4, *found.compare(*rows)[0], 12.0), asked


def test_each_part_measures_its_own_difference():
    same, asked = parts(element("a1"), element("b1"), {c: THUMBS["a"] for c in "ab"})
    assert max(same.pixels, same.pose, same.scale, same.light, same.place) < 1e-3
    assert asked == [("detect", 3), ("detect", 7)]  # each in the shard that it is in

    assert parts(element("a1"), element("b2"))[0].pixels > 0.3
    assert parts(element("a1"), element("b1", side=80, at=(40, 8)))[0].scale == pytest.approx(1.0, abs=1e-3)
    assert parts(element("a1"), element("b1", light=0.5))[0].light > 0.15
    assert parts(element("a1"), element("b1"))[0].place > 0.2
    assert parts(element("a1"), element("b1"), kind="background")[0].place == 0


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
    assert set(found.known) == {0, 5}
    with pytest.raises(ValueError, match=r"gone4 is not in shard 7, .*: run retrieve again"):
        found.spool(np.array([6]))


def ragged(seed, flat=False):
    rng = np.random.default_rng(seed)
    inside = rng.random((copies.SIDE_PX, copies.SIDE_PX)) < rng.uniform(0.2, 0.9)
    grey = np.full(inside.shape, 90.0) if flat else rng.uniform(0, 255, inside.shape)
    return copies.Stamp((grey * inside).astype(np.float32), inside)


def test_many_stamps_are_compared_as_two_are():
    stamps = [*(ragged(n) for n in range(6)), ragged(7, flat=True), ragged(8, flat=True)]
    stamps.append(copies.Stamp(stamps[0].grey[:, ::-1], stamps[0].inside[:, ::-1]))
    i, j = (x.ravel() for x in np.indices((len(stamps), len(stamps))))
    found = np.round(np.stack(correlations(stamps, stamps, i, j), 1), 5)
    expected = [copies.compare_stamps(stamps[a], stamps[b])[:2] for a, b in zip(i, j, strict=True)]
    assert np.allclose(found, expected, atol=1.01e-5)
    assert np.mean(found == expected) > 0.99


def test_surroundings_are_compared_where_neither_box_is():
    rng = np.random.default_rng(1)
    shapes = []
    for _ in range(4):
        box, thumb = np.sort(rng.uniform(0, 1, (2, 2)), axis=0).ravel(), rng.integers(0, 256, (18, 24), dtype=np.uint8)
        shapes.append(Shape(ragged(0), 1.0, box, thumb))
    found = surroundings(shapes, shapes)
    for i, a in enumerate(shapes):
        for j, b in enumerate(shapes):
            free = copies.outside(a.box) & copies.outside(b.box)
            difference = (a.thumb[free] / 255.0 - b.thumb[free] / 255.0) ** 2
            assert found[i, j] == pytest.approx(np.sqrt(difference.mean()) if free.any() else 0.0)
    everywhere = shapes[0]._replace(box=np.array([0.0, 0.0, 1.0, 1.0]))
    assert surroundings([everywhere], shapes).tolist() == [[0.0] * 4]


def test_a_shape_survives_its_bytes():
    shape = Shape(ragged(3), 0.25, np.array([0.1, 0.2, 0.3, 0.4]), THUMBS["a"])
    again = Shape.of_bytes(shape.to_bytes())
    assert again.side == shape.side
    for mine, theirs in zip(
        (*again.stamp, again.box, again.thumb), (*shape.stamp, shape.box, shape.thumb), strict=True
    ):
        assert np.array_equal(mine, theirs)
