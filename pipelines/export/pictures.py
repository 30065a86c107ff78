"""The pictures of references in the style that a target wants."""

import av
import numpy as np

from a2data.dataset.triplet import Origin, ReferenceMeta, Triplet
from a2data.media import images, video
from a2data.media.video import Opener
from stages.segment.clock import Downscaler, to_frame

STYLES = ("cutout", "in-place", "crop")
PTS_TOLERANCE_S = 0.001
CROP_MARGIN = 0.1  # of the box's sides


def picture(triplet: Triplet, given: ReferenceMeta, style: str) -> bytes:
    """Return a reference as PNG: "cutout": cut out on white; "in-place": on white, at its position in the frame it is from.

    The background is the whole picture in either style.
    """
    if style == "in-place" or given.name == "bg":
        return triplet.pictures[given.name]
    return images.to_png(images.on_white(images.from_png(triplet.cut_outs[given.name])))


def crop(origin: Origin, path: str, opener: Opener | None) -> bytes:
    """Return a reference as PNG with its surroundings, cut from the picture of its source with a margin of a tenth.

    Raises OSError if the source is missing, ValueError if it does not have the frame.
    """
    facts = video.probe(path, opener=opener)
    shown = _frame_at(path, opener, facts.stream, origin)
    planes = Downscaler(facts.width // 2 * 2, facts.height // 2 * 2, facts.rotation).planes(shown)
    whole = to_frame(planes).to_ndarray(format="rgb24")
    height, width = whole.shape[:2]
    x0, y0, x1, y1 = images.clamp(origin.source_box, height, width, margin=CROP_MARGIN)
    return images.to_png(np.ascontiguousarray(whole[y0:y1, x0:x1]))


def _frame_at(path: str, opener: Opener | None, stream: int, origin: Origin) -> av.VideoFrame:
    """Return the frame of a source at the time of the origin: after a seek, or by its number if the seek misses it."""
    with video.open_source(path, opener=opener) as (container, _):
        pictures = video.video_stream(container, path, stream)
        pictures.codec_context.thread_count = 1
        if pictures.time_base:
            try:
                container.seek(int(origin.pts_s / pictures.time_base), stream=pictures)
                for frame in container.decode(pictures):
                    if frame.time is None or frame.time > origin.pts_s + PTS_TOLERANCE_S:
                        break
                    if frame.time >= origin.pts_s - PTS_TOLERANCE_S:
                        return frame
            except av.error.FFmpegError:
                pass  # of the seek; decoding from the start tells what is wrong with the file
    for shown in video.read(path, stream, opener=opener):
        if shown.index == origin.source_frame:
            if abs(shown.pts_s - origin.pts_s) > PTS_TOLERANCE_S:
                break
            return shown.picture
    raise ValueError(
        f"{path} does not have frame {origin.source_frame} at {origin.pts_s:.3f} s: it is another file than the one packed"
    )
