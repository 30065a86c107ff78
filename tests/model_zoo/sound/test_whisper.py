import numpy as np
import pytest

from benchmarks.speech import voice
from model_zoo import cards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("transformers")
    import tiny_whisper

    return tiny_whisper.write(tmp_path_factory.mktemp("whisper"))


def test_a_recogniser_says_what_the_pipeline_of_transformers_says(folder):
    from transformers import pipeline

    samples = voice(2.0)
    told = pipeline("automatic-speech-recognition", model=str(folder))(samples.copy())["text"].strip()
    assert told
    assert cards.load(f"whisper:{folder}")(samples) == told


def test_sound_longer_than_the_window_is_heard_in_pieces(folder):
    model = cards.load(f"whisper:{folder}")
    first, second = voice(30.0), voice(1.0, 200.0)
    assert model(np.concatenate([first, second])) == f"{model(first)} {model(second)}"
    assert model(first[:0]) == ""
