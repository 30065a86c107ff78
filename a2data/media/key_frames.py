"""Key frames of a source and the times of all its frames, from its packets: nothing is decoded."""

from bisect import bisect_right
from dataclasses import dataclass

import av

from a2data import heartbeat
from a2data.media.decode_limits import LIMITS, Limits
from a2data.media.video import KeyFrame, Opener, open_source, video_stream

FORMATS = {"mov", "mp4", "matroska", "webm"}  # FFmpeg finds a packet by its time in these without guessing


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a source in presentation order."""

    times_s: list[float]
    keys: list[KeyFrame]  # ascending

    def before(self, frame: int) -> KeyFrame:
        """Return the last key frame that is not after a frame."""
        return self.keys[bisect_right(self.keys, frame, key=lambda key: key.frame) - 1]


def frame_index(path: str, stream: int, limits: Limits = LIMITS, opener: Opener | None = None) -> FrameIndex | None:
    """Return the index of a source; None if decoding might number its frames otherwise.

    That is: another format than FORMATS, a packet without times, with those of another or not in order, or one that is damaged or
    hidden by an edit list, and a source that starts without a key frame.
    """
    with open_source(path, limits, opener=opener) as (container, _):
        video = video_stream(container, path, stream)
        if FORMATS.isdisjoint(container.format.name.split(",")) or video.time_base is None:
            return None
        pts: list[int] = []
        keys: list[tuple[int, int]] = []
        last = None
        try:
            for packet in container.demux(video):
                heartbeat.step()
                if packet.dts is None and packet.size == 0:  # the end
                    break
                if packet.pts is None or packet.dts is None or packet.is_corrupt or packet.is_discard:
                    return None
                if last is not None and packet.dts <= last:
                    return None
                last = packet.dts
                pts.append(packet.pts)
                if packet.is_keyframe:
                    keys.append((packet.pts, packet.dts))
        except av.error.FFmpegError:
            return None
        scale = video.time_base
    ordered = sorted(pts)
    if not keys or keys[0][0] != ordered[0] or len(set(pts)) < len(pts):
        return None
    place = {time: number for number, time in enumerate(ordered)}
    times_s = [float(time) * float(scale.numerator) / float(scale.denominator) for time in ordered]
    return FrameIndex(times_s, sorted(KeyFrame(place[time], time, dts) for time, dts in keys))
