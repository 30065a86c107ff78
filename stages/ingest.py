"""Manifest -> videos: open each file once, record its properties, and reject what the corpus excludes."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from a2data.media import video
from a2data.media.decode_limits import LimitError, Limits
from a2data.records import Reject, Source, Video
from a2data.stage import Stage
from a2data.store.source_files import SourceFile, open_in_place


@dataclass(frozen=True)
class Ingest(Stage):
    """Sources -> videos. A file that cannot be read as video raises; a readable but unwanted one is rejected."""

    reads = {"manifest": Source}
    writes = Video
    row_noun = "videos"
    per = "video"
    opens_sources = True
    accounts_for = "video_id"

    min_short_side_px: int = 200
    """smallest short side as shown, pixels"""
    min_duration_s: float = 1.0
    """shortest duration, seconds, if the container states one"""
    max_duration_s: float = 36000.0
    """longest duration, seconds: 10 hours"""
    min_fps: float = 8.0
    """lowest frame rate, fps; below half the clips' 15 fps, every frame would be shown twice"""
    max_fps: float = 1000.0
    """highest frame rate, fps; high-speed cameras reach 960; beyond it, a container states its clock's ticks"""
    max_side_px: int = 8192
    """longest side as coded and as shown, pixels: DCI 8K"""
    max_pixel_aspect: float = 4.0
    """highest ratio of a pixel's longer to its shorter side; anamorphic film has 2"""
    max_aspect: float = 4.0
    """highest ratio of the longer to the shorter side as shown; Polyvision, the widest film format, has 4"""
    max_source_frames: int = 5_000_000
    """most frames of a video: 10 hours at 120 fps are 4.3 million"""
    max_bytes: int = 1_000_000_000_000
    """largest file, bytes: 10 hours of ProRes 4444 in 4K are 0.9 TB"""
    max_decoder_bytes: int = 1_500_000_000
    """most memory to open a file and decode its first frame, bytes; Linux only"""
    labels: str = ""
    """accepted labels, comma-separated; "" = all"""
    sources: str = ""
    """accepted sources, comma-separated; "" = all"""
    licenses: str = ""
    """accepted licences, comma-separated; "" = all"""

    def run(
        self, model: None, manifest: list[Source], source_file: SourceFile = open_in_place
    ) -> Iterator[Video | Reject]:
        for source in manifest:
            reject = reject_by_manifest(self, source)
            if reject:
                yield reject
                continue
            if source.unreadable:
                raise ValueError(f"{source.path}: {source.unreadable}")
            if has_changed(source):
                raise ValueError(f"{source.path} has changed since it was listed: `a2data run` adds it as a new video")
            try:
                probed = video.probe(source.path, self.limits(), source_file(source.video_id, source.path))
            except LimitError as error:
                yield Reject(source.video_id, error.reason, error.detail)
                continue
            properties = {name: value for name, value in probed._asdict().items() if name != "frames"}
            yield reject_by_properties(self, source, probed) or Video(
                video_id=source.video_id,
                path=source.path,
                license=source.license,
                source=source.source,
                label=source.label,
                refused=source.refused,
                **properties,
            )

    def limits(self) -> Limits:
        return Limits(
            self.max_side_px, self.max_pixel_aspect, self.max_aspect, self.max_source_frames, self.max_decoder_bytes
        )


def has_changed(source: Source) -> bool:
    """Return whether a local file's size changed since its bytes were hashed, so that its video_id is wrong."""
    return os.path.exists(source.path) and os.path.getsize(source.path) != source.bytes


def reject_by_manifest(settings: Ingest, source: Source) -> Reject | None:
    """Return the rejection that follows from the manifest alone, or None."""
    if source.duplicate_of:
        return Reject(source.video_id, "duplicate", f"same bytes as {source.duplicate_of}")
    if source.license_conflict:
        return Reject(source.video_id, "licence conflict", source.license_conflict)
    if source.bytes > settings.max_bytes:
        return Reject(source.video_id, "too many bytes", f"{source.bytes} bytes are over {settings.max_bytes}")
    for reason, value, allowed in (
        ("label", source.label, settings.labels),
        ("source", source.source, settings.sources),
        ("license", source.license, settings.licenses),
    ):
        accepted = [name.strip() for name in allowed.split(",") if name.strip()]
        if accepted and value not in accepted:
            return Reject(source.video_id, reason, f"{reason} {value!r} is not one of {', '.join(accepted)}")
    return None


def reject_by_properties(settings: Ingest, source: Source, probed: video.Probe) -> Reject | None:
    """Return the rejection of a video by its properties, or None."""
    short_side, duration = min(probed.width, probed.height), probed.duration_s
    rules: Iterable[tuple[bool, str, str]] = (
        (
            short_side < settings.min_short_side_px,
            "too small",
            f"{probed.width} x {probed.height}: the short side is under {settings.min_short_side_px} px",
        ),
        (
            0 < duration < settings.min_duration_s,
            "too short",
            f"{duration:.3g} s is under {settings.min_duration_s:g} s",
        ),
        (duration > settings.max_duration_s, "too long", f"{duration:.6g} s is over {settings.max_duration_s:g} s"),
        (probed.fps < settings.min_fps, "too few fps", f"{probed.fps:.3g} fps is under {settings.min_fps:g}"),
        (probed.fps > settings.max_fps, "too many fps", f"{probed.fps:.6g} fps is over {settings.max_fps:g}"),
        (
            probed.frames > settings.max_source_frames,
            "too many frames",
            f"{probed.frames} frames are over {settings.max_source_frames}",
        ),
    )
    return next((Reject(source.video_id, reason, detail) for broken, reason, detail in rules if broken), None)
