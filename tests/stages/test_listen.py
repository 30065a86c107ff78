from dataclasses import replace

import numpy as np
import pytest

from a2data.media import sound
from a2data.records import ClipVideo, Sound, Span
from stages.listen import RATE_HZ, Listen, Models, dbfs, loudness, silence, speech_spans


@pytest.fixture
def clip(make_film):
    """clip(samples): a clip of one second with (2, 48000) samples; None for one without sound."""

    def make(samples: np.ndarray | None) -> ClipVideo:
        film = make_film(np.full((15, 32, 32, 3), 90, np.uint8))
        return film if samples is None else replace(film, video=sound.with_sound(film.video, samples, RATE_HZ))

    return make


def tone(amplitude: float, seconds: float = 1.0) -> np.ndarray:
    wave = amplitude * np.sin(2 * np.pi * 997 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
    return np.stack([wave, wave]).astype(np.float32)


def heard(clip: ClipVideo, vad=None, asr=None, **settings) -> Sound:
    (row,) = Listen(**settings).run(Models(vad, asr), [clip])
    return row


@pytest.mark.parametrize("lufs", [-23.0, -33.0])
def test_the_loudness_of_a_stereo_tone_is_that_of_ebu_tech_3341(lufs):
    """Its cases 1 and 2: 1 kHz at -23 and -33 dBFS in both channels is -23 and -33 LUFS, to 0.1."""
    assert loudness(tone(10 ** (lufs / 20), 20)) == pytest.approx(lufs, abs=0.1)


def test_loudness_ignores_silence_between_sounds():
    gated = np.concatenate([tone(0.1, 5), np.zeros((2, 5 * RATE_HZ), np.float32)], axis=1)
    assert loudness(gated) == pytest.approx(loudness(tone(0.1, 5)), abs=0.3)


def test_silence_and_sound_shorter_than_a_block_are_at_the_gate():
    assert loudness(np.zeros((2, RATE_HZ), np.float32)) == -70
    assert loudness(tone(0.1, 0.02)) == -70


def test_silence_is_the_fraction_of_blocks_below_a_level():
    samples = tone(0.5)
    samples[:, RATE_HZ // 4 :] *= 1e-4
    assert silence(samples, -60) == pytest.approx(0.75)
    assert silence(samples, -100) == 0


def test_a_clip_is_measured_as_it_is_heard(clip):
    row = heard(clip(tone(0.5)))
    assert (row.clip_id, row.duration_s, row.silence, row.problem) == ("clip", 1.0, 0.0, "")
    assert row.peak_dbfs == pytest.approx(dbfs(0.5), abs=0.3)
    assert row.loudness_lufs == pytest.approx(dbfs(0.5), abs=0.5)
    assert (row.speech, row.speech_spans) == (-1.0, [])
    assert "speech" not in row.scores()


def test_a_clip_without_sound_is_silent(clip):
    row = heard(replace(clip(None), sound_problem="no decoder"), vad=lambda samples: 1 / 0)
    assert row == Sound("clip", 0.0, -70.0, -120.0, 1.0, 0.0, [], "no decoder")


def test_speech_is_what_the_model_says_of_mono_at_16_khz(clip):
    seen = []

    def vad(samples):
        seen.append(samples)
        return np.repeat([0.0, 0.9, 0.0], [8, 16, 8]).astype(np.float32)

    row = heard(clip(tone(0.5)), vad)
    assert seen[0].shape == (16_000,)
    # a mono source has 3 dB less in each channel of the clip
    assert np.abs(seen[0]).max() == pytest.approx(0.5 * 2**0.5, rel=0.05)
    assert row.speech_spans == [Span(0.256, 0.768)]
    assert row.speech == pytest.approx(0.512)


def test_only_speech_is_transcribed(clip):
    def speech(share):
        return lambda samples: np.full(32, share, np.float32)

    loud = clip(tone(0.5))
    assert heard(loud, speech(0.9), lambda samples: f"{len(samples)} samples").transcript == "16000 samples"
    assert heard(loud, None, lambda samples: "said").transcript == "said"
    assert heard(loud, speech(0.1), lambda samples: 1 / 0).transcript == ""
    assert heard(clip(None), speech(0.9), lambda samples: 1 / 0).transcript == ""


@pytest.mark.parametrize(
    ("probabilities", "spans"),
    [
        ([0.9] * 10, [(0.0, 0.32)]),
        ([0.9] * 5 + [0.4] * 5, [(0.0, 0.32)]),  # above 0.5 - 0.15
        ([0.4] * 5 + [0.9] * 10, [(0.16, 0.48)]),
        ([0.9] * 10 + [0.0] * 3 + [0.9] * 10, [(0.0, 0.736)]),  # a pause of 96 ms
        ([0.9] * 10 + [0.0] * 4 + [0.9] * 10, [(0.0, 0.32), (0.448, 0.768)]),
        ([0.9] * 7, []),  # 224 ms
        ([], []),
    ],
)
def test_speech_has_hysteresis_a_least_length_and_a_least_pause(probabilities, spans):
    found = speech_spans(np.array(probabilities, np.float32), 60.0, 0.5, 0.25, 0.1)
    assert [(span.start_s, span.end_s) for span in found] == [pytest.approx(span) for span in spans]


def test_speech_does_not_last_longer_than_the_clip():
    assert speech_spans(np.ones(32, np.float32), 1.0, 0.5, 0.25, 0.1) == [Span(0.0, 1.0)]
