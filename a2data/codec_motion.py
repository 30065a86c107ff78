"""Motion measured from the motion vectors of an encoded clip, at the cost of a decode without pictures. No weights.

Unchanged blocks are coded with a zero vector, so a static clip scores nearly 0. Motion vectors serve compression and are not
optical flow: in flat areas they drift, and a fade, a flash or a new object has none. The patch with the least motion
distinguishes clips in which everything moves (a camera, a flock) from clips with motion in front of a static background.
"""

import av
import numpy as np

from a2data.media import video

CELL_PX = 8  # side of the smallest block that FFmpeg reports; the others are one or two cells high and wide
PATCH_PX = 256  # approximate side of a patch; the picture is divided evenly


def codec_motion(data: bytes) -> dict[str, float]:
    """Return the length of the motion vectors of an encoded clip, as a fraction of picture width plus height per vector.

    codec_motion: mean over all pixels and frames. cosmos-curate drops clips below 0.00098, which is too high here: a person who
    signs in front of a static camera has 0.0006. codec_motion_least: mean in the patch of about 256 px where it is lowest;
    cosmos-curate drops clips below 0.000001. Blocks without a vector (in the first frame, or with new content) count as 0; a
    block with two vectors, from an earlier and a later frame, counts with their mean. A vector may span several frames.
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
    """Return the mean length in px of the vectors in each 8 x 8 px cell over the frames of a clip, and (height, width) in px.

    The first frame does not have vectors and is not counted. Raises ValueError for a clip without frames.
    """
    with video.open_bytes(data) as container:
        stream = container.streams.video[0]
        stream.codec_context.flags2 |= av.codec.context.Flags2.export_mvs
        stream.codec_context.thread_count = 1  # some FFmpeg versions lose vectors with several threads
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
        raise ValueError("the clip does not have any frames")
    return total / max(1, frames - 1), sides_px


def lengths(vectors: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mean length in px of one frame's vectors in each cell, `shape` float64; 0 in cells without vectors."""
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
