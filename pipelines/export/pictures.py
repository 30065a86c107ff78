"""The pictures of references in the style of a target."""

import av
import numpy as np

from a2data.dataset.triplet import Origin, ReferenceMeta, Triplet
from a2data.media import images, video
from a2data.media.video import Opener
from stages.segment.clock import Downscaler, to_frame

STYLES = ("cutout", "in-place", "crop")
PTS_TOLERANCE_S = 0.001
CROP_MARGIN = 0.1  # of the box's sides


def picture(triplet: Triplet, reference: ReferenceMeta, style: str) -> bytes:
    """Return a reference as PNG: "cutout": cut out on white; "in-place": on white, at its position in the frame it is from.

    The background is the whole picture in either style.
    """
    if style == "in-place" or reference.name == "bg":
        return triplet.pictures[reference.name]
    return images.to_png(images.on_white(images.from_png(triplet.cut_outs[reference.name])))


def crop(origin: Origin, path: str, opener: Opener | None) -> bytes:
    """Return a reference as PNG with its surroundings, cut from the picture of its source with a margin of a tenth.

    Raises OSError if the source is missing, ValueError if it does not have the frame.
    """
    info = video.probe(path, opener=opener)
    frame = _frame_at(path, opener, info.stream, origin)
    planes = Downscaler(info.width // 2 * 2, info.height // 2 * 2, info.rotation).planes(frame)
    pixels = to_frame(planes).to_ndarray(format="rgb24")
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = images.clamp(origin.source_box, height, width, margin=CROP_MARGIN)
    return images.to_png(np.ascontiguousarray(pixels[y0:y1, x0:x1]))


def _frame_at(path: str, opener: Opener | None, stream: int, origin: Origin) -> av.VideoFrame:
    """Return the frame of a source at the time of the origin: after a seek, or by its number if the seek misses it."""
    with video.open_source(path, opener=opener) as (container, _):
        video_track = video.video_stream(container, path, stream)
        video_track.codec_context.thread_count = 1
        if video_track.time_base:
            try:
                container.seek(int(origin.pts_s / video_track.time_base), stream=video_track)
                for frame in container.decode(video_track):
                    if frame.time is None or frame.time > origin.pts_s + PTS_TOLERANCE_S:
                        break
                    if frame.time >= origin.pts_s - PTS_TOLERANCE_S:
                        return frame
            except av.error.FFmpegError:
                pass  # of the seek; decoding from the start reports a damaged file
    for source_frame in video.read(path, stream, opener=opener):
        if source_frame.index == origin.source_frame:
            if abs(source_frame.pts_s - origin.pts_s) > PTS_TOLERANCE_S:
                break
            return source_frame.picture
    raise ValueError(
        f"{path} does not have frame {origin.source_frame} at {origin.pts_s:.3f} s: it is another file than the one packed"
    )
