"""Clip filter: thresholds over scores, and the first rule that each rejected clip failed."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from a2data import records
from a2data.records import Clip, Kept, Reject, Rule, Sound
from a2data.stage import Stage

# How to enable a metric that is not measured by default.
MEASURED_BY = {
    "text": "score.text_model=rapidocr",
    "burnt_text": "score.text_model=rapidocr",
    "aesthetic": "score.quality_models=laion-aesthetic",
    "nsfw": "score.quality_models=falconsai-nsfw",
    "flow": "score.quality_models=raft-small",
    "flow_top5": "score.quality_models=raft-small",
    "codec_motion": "score.codec_motion=true",
    "codec_motion_least": "score.codec_motion=true",
    "speech": "listen.vad_model=silero-vad",
}
SOUND = ("loudness", "silence", "speech")


@dataclass(frozen=True)
class Select(Stage):
    """Clips and their scores -> the clips that pass. Runs no model, so new thresholds are cheap.

    The defaults accept a person signing before a static camera, and reject static pictures.
    """

    reads = {"segment": Clip, "score": records.Score, "logos": records.Score, "listen": Sound}
    writes = Kept
    row_noun = "clips"
    accounts_for = "clip_id"

    min_motion: float = 0.001
    """lowest mean difference from frame to frame, 0 to 1"""
    max_motion: float = 0.2
    """highest mean difference from frame to frame, 0 to 1; above it, frames are hardly related"""
    max_static: float = 0.8
    """largest fraction of steps without any change, 0 to 1"""
    min_sharpness: float = 10.0
    """lowest median variance of the Laplacian, from 0"""
    min_luma: float = 0.04
    """lowest mean luma, 0 to 1"""
    max_luma: float = 0.94
    """highest mean luma, 0 to 1"""
    max_luma_range: float = 0.6
    """largest difference in mean luma between two frames, 0 to 1"""
    max_bars: float = 0.5
    """largest fraction of the source picture under letterbox bars, 0 to 1"""
    max_text: float = 0.15
    """largest fraction of the picture under text, 0 to 1; inf if text is not measured"""
    max_burnt_text: float = 0.005
    """largest fraction of the picture under subtitles and the like, 0 to 1; inf if text is not measured"""
    max_logo: float = 0.001
    """largest fraction of the picture under marks that stay through the video, 0 to 1; a corner logo has 0.003 and more"""

    # Off by default. A clip without sound is silent, at -70 LUFS.
    min_loudness: float = -inf
    """lowest integrated loudness, LUFS; broadcasts have about -23"""
    max_loudness: float = inf
    """highest integrated loudness, LUFS"""
    max_silence: float = inf
    """largest fraction of the clip that is silent, 0 to 1"""
    min_speech: float = -inf
    """smallest fraction of the clip with speech, 0 to 1"""
    max_speech: float = inf
    """largest fraction of the clip with speech, 0 to 1; 0 for clips without speech"""

    # Off by default; each needs a model or a setting of score, see MEASURED_BY.
    min_aesthetic: float = -inf
    """lowest mean over the frames, about 1 to 10; cosmos-curate takes 3.5"""
    max_nsfw: float = inf
    """highest score of the worst frame, 0 to 1"""
    min_flow: float = -inf
    """lowest mean speed, picture widths per second"""
    max_flow: float = inf
    """highest mean speed, picture widths per second"""
    min_flow_top5: float = -inf
    """lowest displacement of the fastest pixels, px at a shorter side of 256; VBench uses 6"""
    min_codec_motion: float = -inf
    """lowest mean motion vector, widths plus heights; sign language has 0.0006"""
    min_codec_motion_least: float = -inf
    """lowest minimum of the motion vectors, widths plus heights; cosmos-curate uses 0.000001"""

    def run(
        self,
        model: Any,
        clips: list[Clip],
        scores: list[records.Score],
        logos: list[records.Score],
        sounds: list[Sound],
    ) -> Iterator[Any]:
        for clip in clips:
            clip_scores = {s.metric: s.value for s in (*scores, *logos) if s.clip_id == clip.clip_id}
            for sound in sounds:
                clip_scores |= sound.scores() if sound.clip_id == clip.clip_id else {}
            try:
                failed = [rule for rule in apply_thresholds(clip_scores, self) if not rule.passed]
            except KeyError as missing:
                raise ValueError(_unmeasured(clip.clip_id, missing.args[0])) from missing
            if failed:
                yield Reject(clip.clip_id, failed[0].name, str(failed[0]))
            else:
                yield Kept(clip.clip_id, clip.video_id)


def _unmeasured(clip_id: str, metric: str) -> str:
    setting = f" (--set {MEASURED_BY[metric]})" if metric in MEASURED_BY else ""
    stage = "listen" if metric in SOUND else "score"
    return f"clip {clip_id} has no score {metric!r}: let the {stage} stage measure it{setting}, or open the threshold (inf)"


def apply_thresholds(scores: dict[str, float], settings: Select) -> list[Rule]:
    """Return the enabled rules with their results, in the order in which they are checked.

    A metric whose thresholds are all infinite is not checked. Raises KeyError for a metric that is checked but was not measured.
    A NaN score passes no rule.
    """
    bounds = {
        "motion": (settings.min_motion, settings.max_motion),
        "static": (-inf, settings.max_static),
        "sharpness": (settings.min_sharpness, inf),
        "luma": (settings.min_luma, settings.max_luma),
        "luma_range": (-inf, settings.max_luma_range),
        "bars": (-inf, settings.max_bars),
        "text": (-inf, settings.max_text),
        "burnt_text": (-inf, settings.max_burnt_text),
        "logo": (-inf, settings.max_logo),
        "aesthetic": (settings.min_aesthetic, inf),
        "nsfw": (-inf, settings.max_nsfw),
        "flow": (settings.min_flow, settings.max_flow),
        "flow_top5": (settings.min_flow_top5, inf),
        "codec_motion": (settings.min_codec_motion, inf),
        "codec_motion_least": (settings.min_codec_motion_least, inf),
        "loudness": (settings.min_loudness, settings.max_loudness),
        "silence": (-inf, settings.max_silence),
        "speech": (settings.min_speech, settings.max_speech),
    }
    enabled = {metric: interval for metric, interval in bounds.items() if interval != (-inf, inf)}
    return [Rule(metric, scores[metric], low, high) for metric, (low, high) in enabled.items()]
