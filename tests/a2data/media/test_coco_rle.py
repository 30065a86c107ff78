import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from a2data.media.coco_rle import Rle, decode, encode

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40))


@given(MASKS)
def test_a_mask_survives(mask):
    assert np.array_equal(decode(encode(mask)), mask)


@given(MASKS.filter(lambda mask: mask.size))
def test_the_counts_are_those_of_pycocotools(mask):
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode(mask) == Rle(tuple(theirs["size"]), theirs["counts"].decode())
    assert np.array_equal(coco.decode(vars(encode(mask))), mask)


def test_long_runs_and_large_differences_are_those_of_the_definition():
    """Decoded by hand: groups of five bits, a sign, and from the fourth run on the difference to the one before the last."""
    mask = np.zeros((1000, 3), bool)
    mask[0, 0] = mask[999, 1:] = True
    runs, values, value, shift = [], [], 0, 0
    for c in encode(mask).counts:
        value |= ((ord(c) - 48) & 31) << shift
        shift += 5
        if not (ord(c) - 48) & 32:
            values.append(value - (1 << shift if (ord(c) - 48) & 16 else 0))
            value = shift = 0
    for n, v in enumerate(values):
        runs.append(v + runs[n - 2] if n > 2 else v)
    assert runs == [0, 1, 1998, 1, 999, 1]


@pytest.mark.parametrize(
    ("rle", "why"),
    [
        (Rle((2, 2), "12"), "do not fill 2 x 2"),
        (Rle((2, 2), "122"), "do not fill 2 x 2"),
        (Rle((2, 2), "1O4"), "do not fill 2 x 2"),
        (Rle((2, 2), "1Q"), "do not fill 2 x 2"),
        (Rle((2, 2), "1 2"), "not COCO's"),
        (Rle((2, 2), "o" * 20), "not COCO's"),
        (Rle((1 << 20, 1 << 20), "1"), "at most 33554432"),
        (Rle((-1, 5), ""), "at most 33554432"),
    ],
)
def test_counts_that_do_not_fit_their_mask_are_refused(rle, why):
    with pytest.raises(ValueError, match=why):
        decode(rle)
