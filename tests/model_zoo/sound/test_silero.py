import mediapipe_networks
import numpy as np
import pytest

from benchmarks.speech import voice


@pytest.fixture(scope="module")
def model():
    return mediapipe_networks.network("silero-vad")


def padded(speech):
    noise = 0.001 * np.random.default_rng(1).standard_normal(8000 + len(speech) + 16_000).astype(np.float32)
    noise[8000:-16_000] += speech
    return noise


def test_vowels_are_speech_and_what_is_around_them_is_not(model):
    found = model(padded(voice(2.0)))
    assert len(found) == 110  # 3.5 s in steps of 32 ms, rounded up
    assert found[18:76].min() > 0.5
    assert max(found[:14].max(), found[84:].max()) < 0.2


def test_a_tone_is_not_speech(model):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    assert model(padded(tone.astype(np.float32))).max() < 0.5


def test_a_long_sound_is_as_in_one_piece(model, monkeypatch):
    samples = padded(voice(1.0))
    whole = model(samples)
    monkeypatch.setattr("model_zoo.sound.silero.MAX_STEPS", 7)
    assert np.abs(model(samples) - whole).max() < 1e-4


def test_no_sound_has_no_steps(model):
    assert model(np.zeros(0, np.float32)).shape == (0,)
