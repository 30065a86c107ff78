"""Masks in the run-length encoding of COCO, as `pycocotools.mask` reads and writes it.

Written here because shards are untrusted: the C code of pycocotools allocates what a mask's size asks for before it reads the
runs. A test compares the two.
"""

from dataclasses import dataclass

import numpy as np

from a2data.media.images import MAX_PIXELS


@dataclass(frozen=True)
class Rle:
    """A compressed mask. `vars(rle)` is what `pycocotools.mask.decode` takes."""

    size: tuple[int, int]  # height, width
    counts: str  # run lengths in column-major order, zeros first, as printable ASCII


NO_MASK = Rle((0, 0), "")


def encode(mask: np.ndarray) -> Rle:
    """Encode an (h, w) bool mask.

    From the third run on, the difference to the run before the last is written: six bits a character, five of the number from
    the lowest on and one that says whether more follow (rleToString in cocoapi/common/maskApi.c).

    >>> encode(np.array([[0, 1], [1, 0]], bool))
    Rle(size=(2, 2), counts='121')
    """
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist() if flat.size else []
    if flat.size and flat[0]:
        runs.insert(0, 0)
    text = bytearray()
    for number, run in enumerate(runs):
        left = run - runs[number - 2] if number > 2 else run
        more = True
        while more:
            bits = left & 31
            left >>= 5
            more = left != (-1 if bits & 16 else 0)
            text.append(48 + bits + 32 * more)
    return Rle((mask.shape[0], mask.shape[1]), text.decode())


def decode(rle: Rle) -> np.ndarray:
    """Decode to an (h, w) bool mask. Raises ValueError if the runs do not fill it, or if it has more than MAX_PIXELS."""
    height, width = rle.size
    if height < 0 or width < 0 or height * width > MAX_PIXELS:
        raise ValueError(f"a mask of {height} x {width} pixels; at most {MAX_PIXELS} are read")
    runs: list[int] = []
    value = shift = 0
    for byte in rle.counts.encode():
        bits = byte - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError(f"a mask with the counts {rle.counts[:20]!r}…, which are not COCO's")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (1 << shift) * (bits >> 4 & 1)
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift or any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"a mask whose {len(runs)} runs do not fill {height} x {width} pixels")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(height, width, order="F")
