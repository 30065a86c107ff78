"""Manifest -> videos: open each file once, say what is in it, and turn away what the corpus does not want."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from a2data import video
from a2data.records import Reject, Source, Video
from a2data.stage import Stage


@dataclass(frozen=True)
class Ingest(Stage):
    """Sources -> videos. A file that cannot be read as video raises; one that can, but is not wanted, is rejected."""

    reads = {"manifest": Source}
    writes = Video
    per = "video"
    accounts_for = "video_id"

    min_short_side_px: int = 200  # as shown
    min_duration_s: float = 1.0  # where the container knows its duration
    max_duration_s: float = 36000.0  # 10 hours
    min_fps: float = 8.0  # below half the clip's 15 fps every frame would be shown twice
    labels: str = ""  # comma-separated labels that are wanted; "" for all
    sources: str = ""  # comma-separated sources that are wanted; "" for all
    licenses: str = ""  # comma-separated licences that are wanted; "" for all

    def run(self, model: None, manifest: list[Source]) -> Iterator[Video | Reject]:
        for source in manifest:
            reject = unwanted(self, source)
            if reject:
                yield reject
                continue
            if changed(source):
                raise ValueError(
                    f"{source.path} has changed since it was listed: `a2data run` takes it in as a new video"
                )
            facts = video.probe(source.path)
            yield misfit(self, source, facts) or Video(
                video_id=source.video_id,
                path=source.path,
                license=source.license,
                source=source.source,
                label=source.label,
                refused=source.refused,
                **facts._asdict(),
            )


def changed(source: Source) -> bool:
    """Whether a local file has another size than when its bytes were hashed: its video_id would be another's."""
    return os.path.exists(source.path) and os.path.getsize(source.path) != source.bytes


def unwanted(settings: Ingest, source: Source) -> Reject | None:
    """Why the manifest alone is enough to turn a source away; None if it is not."""
    if source.duplicate_of:
        return Reject(source.video_id, "duplicate", f"same bytes as {source.duplicate_of}")
    for reason, value, allowed in (
        ("label", source.label, settings.labels),
        ("source", source.source, settings.sources),
        ("license", source.license, settings.licenses),
    ):
        wanted = [name.strip() for name in allowed.split(",") if name.strip()]
        if wanted and value not in wanted:
            return Reject(source.video_id, reason, f"{reason} {value!r} is none of {', '.join(wanted)}")
    return None


def misfit(settings: Ingest, source: Source, facts: video.Probe) -> Reject | None:
    """Why a video does not fit the corpus; None if it does."""
    short_side, duration = min(facts.width, facts.height), facts.duration_s
    rules: Iterable[tuple[bool, str, str]] = (
        (
            short_side < settings.min_short_side_px,
            "too small",
            f"{facts.width} x {facts.height}: the short side is under {settings.min_short_side_px} px",
        ),
        (
            0 < duration < settings.min_duration_s,
            "too short",
            f"{duration:.3g} s is under {settings.min_duration_s:g} s",
        ),
        (duration > settings.max_duration_s, "too long", f"{duration:.6g} s is over {settings.max_duration_s:g} s"),
        (facts.fps < settings.min_fps, "too few fps", f"{facts.fps:.3g} fps is under {settings.min_fps:g}"),
    )
    return next((Reject(source.video_id, reason, detail) for broken, reason, detail in rules if broken), None)
