"""Motion as the encoder saw it: the motion vectors inside a clip, for the price of a decode without pictures. No weights.

A block that did not change is coded "as before" with a vector of 0, so that a clip that stands still has nearly 0. Vectors
serve compression, not truth: in flat areas they wander, and a fade, a flash or a new thing has none. The least moving patch tells
a clip in which all moves (a camera, a flock) from one where something moves in front of what stands still.
"""

import av
import numpy as np

from a2data.media import video

CELL_PX = 8  # side of the smallest block that FFmpeg reports; the others are one or two cells high and wide
PATCH_PX = 256  # side of a patch, about: as many as fit are spread evenly


def codec_motion(data: bytes) -> dict[str, float]:
    """The length of the motion vectors of an encoded clip, in widths plus heights of the picture per vector.

    codec_motion: mean over all pixels and frames. cosmos-curate drops clips below 0.00098: too much here, a person who signs in
    front of a camera that stands still has 0.0006. codec_motion_least: mean in the patch of about 256 px where it is least; it
    drops clips below 0.000001. Blocks without a vector (of the first frame, of what is new)
    count as 0; where a block has two, from before and from after, their mean counts. A vector may reach over several frames.
    """
    cells, sides_px = mean_lengths(data)
    cells = cells / sum(sides_px)
    return {
        "codec_motion": float(cells.mean()),
        "codec_motion_least": min(
            float(patch.mean())
            for band in np.array_split(cells, max(1, round(sides_px[0] / PATCH_PX)), axis=0)
            for patch in np.array_split(band, max(1, round(sides_px[1] / PATCH_PX)), axis=1)
        ),
    }


def mean_lengths(data: bytes) -> tuple[np.ndarray, tuple[int, int]]:
    """The mean length of the vectors in each cell of 8 x 8 px over the frames of a clip, in pixels, and height and width in px.

    The frame that the clip begins with can have no vectors and does not count. Raises ValueError for a clip without frames.
    """
    with video.open_bytes(data) as container:
        stream = container.streams.video[0]
        stream.codec_context.flags2 |= av.codec.context.Flags2.export_mvs
        stream.codec_context.thread_count = 1  # frames decoded in several threads have lost vectors in some FFmpegs
        sides_px, frames = (0, 0), 0
        total = np.zeros((0, 0))
        for picture in container.decode(stream):
            if not frames:
                sides_px = (picture.height, picture.width)
                total = np.zeros((-(-picture.height // CELL_PX), -(-picture.width // CELL_PX)))
            frames += 1
            vectors = picture.side_data.get("MOTION_VECTORS")
            if vectors is not None:
                total += lengths(vectors.to_ndarray(), total.shape)
    if not frames:
        raise ValueError("the clip has no frame")
    return total / max(1, frames - 1), sides_px


def lengths(vectors: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """FFmpeg's vectors of one frame as their mean length in each cell, `shape` float64, in pixels; 0 where there is none."""
    length = np.hypot(vectors["motion_x"], vectors["motion_y"]) / np.maximum(1, vectors["motion_scale"])
    left = (vectors["dst_x"].astype(int) - vectors["w"] // 2) // CELL_PX  # dst is the middle of the block
    top = (vectors["dst_y"].astype(int) - vectors["h"] // 2) // CELL_PX
    total, count = np.zeros(shape[0] * shape[1]), np.zeros(shape[0] * shape[1])
    for down in range(16 // CELL_PX):
        for right in range(16 // CELL_PX):
            y, x = top + down, left + right
            there = (vectors["h"] > down * CELL_PX) & (vectors["w"] > right * CELL_PX)
            there &= (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
            cell = y[there] * shape[1] + x[there]
            total += np.bincount(cell, length[there], total.size)
            count += np.bincount(cell, minlength=count.size)
    return (total / np.maximum(1, count)).reshape(shape)
