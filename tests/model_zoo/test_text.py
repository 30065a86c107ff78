import importlib.util
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from model_zoo import cards, text


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("rapidocr")
    return cards.load("rapidocr")


def subtitled(words: str) -> np.ndarray:
    frame = np.full((360, 640, 3), 90, np.uint8)
    cv2.putText(frame, words, (100, 320), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (255, 255, 255), 3)
    return frame


def test_the_area_of_a_subtitle_is_found(model):
    (width, height), _ = cv2.getTextSize("hello subtitle here", cv2.FONT_HERSHEY_SIMPLEX, 1.2, 3)
    share = model(subtitled("hello subtitle here"))
    assert 0.8 * width * height <= share * 360 * 640 <= 2.5 * width * height


def test_a_picture_without_text_has_none(model):
    assert model(subtitled("")) == 0.0


def test_overlapping_boxes_count_once():
    square = np.array([[10, 10], [29, 10], [29, 29], [10, 29]], np.float32)
    assert text.share([square, square + 10], 100, 100) == pytest.approx((400 + 400 - 100) / 1e4)


def test_a_rapidocr_without_its_detector_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    with pytest.raises(FileNotFoundError, match="no text detector"):
        text.rapidocr(cards.card("rapidocr"), "cpu")


def test_the_height_of_a_line_of_type_is_its_shorter_side_however_it_is_turned():
    line = np.array([[0, 0], [100, 0], [100, 20], [0, 20]], np.float32)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]], np.float32)
    assert text.thickness(line) == pytest.approx(20)
    assert text.thickness(line @ turn) == pytest.approx(20, abs=1e-3)
