import importlib.util
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from model_zoo import cards
from model_zoo.quality import text


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
    found = model(subtitled("hello subtitle here"))
    assert 0.8 * width * height <= found.sum() <= 2.5 * width * height


def test_a_picture_without_text_has_none(model):
    assert not model(subtitled("")).any()


def test_overlapping_boxes_count_once():
    square = np.array([[10, 10], [29, 10], [29, 29], [10, 29]], np.float32)
    assert text.covered([square, square + 10], 100, 100).sum() == 400 + 400 - 100


def test_a_rapidocr_without_its_detector_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    with pytest.raises(FileNotFoundError, match="no text detector"):
        text.rapidocr(cards.card("rapidocr"), "cpu")


def test_the_height_of_a_line_of_type_is_its_shorter_side_however_it_is_turned():
    line = np.array([[0, 0], [100, 0], [100, 20], [0, 20]], np.float32)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]], np.float32)
    assert text.thickness(line) == pytest.approx(20)
    assert text.thickness(line @ turn) == pytest.approx(20, abs=1e-3)


@pytest.fixture(scope="module")
def random_ppocr(tmp_path_factory):
    """A folder with the real PP-OCRv5 mobile detector, not trained, and its preprocessing."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers import PPOCRV5MobileDetConfig, PPOCRV5MobileDetForObjectDetection, PPOCRV5ServerDetImageProcessor

    folder = tmp_path_factory.mktemp("ppocr")
    torch.manual_seed(0)
    PPOCRV5MobileDetForObjectDetection(PPOCRV5MobileDetConfig()).save_pretrained(folder)
    PPOCRV5ServerDetImageProcessor().save_pretrained(folder)
    return folder


def test_a_ppocr_of_transformers_gives_the_pixels_under_text(random_ppocr):
    found = cards.load(f"ppocrv5-mobile:{random_ppocr}")(subtitled("hello"))
    assert (found.shape, found.dtype) == ((360, 640), bool)


def bright(pixels):
    """A detector that takes all that is brighter than ImageNet's mean for type."""
    return SimpleNamespace(last_hidden_state=(pixels.mean(1, keepdim=True) > 0).float())


@pytest.mark.parametrize(("height", "width"), [(360, 640), (720, 1280), (333, 517)])
def test_boxes_come_back_to_where_the_type_is_in_the_frame(random_ppocr, height, width):
    from transformers import AutoImageProcessor

    frame = np.zeros((height, width, 3), np.uint8)
    y0, y1, x0, x1 = height // 2, height // 2 + height // 8, width // 4, 3 * width // 4
    frame[y0:y1, x0:x1] = 255
    prepare = AutoImageProcessor.from_pretrained(random_ppocr, local_files_only=True)
    (corners,) = text.boxes(bright, prepare, frame)
    assert corners.shape == (4, 2)
    grown = 1.5 * (y1 - y0) * (x1 - x0) / (2 * (y1 - y0 + x1 - x0))  # PP-OCR's detectors find the core of a line only
    assert corners.min(0) == pytest.approx((x0 - grown, y0 - grown), abs=4 * height / 360)
    assert corners.max(0) == pytest.approx((x1 + grown, y1 + grown), abs=4 * height / 360)


def test_a_box_higher_than_any_line_of_type_is_none():
    line = np.array([[0, 0], [300, 0], [300, 20], [0, 20]], np.float32)
    assert text.lines([line, line * 10], 360)[0] is line
    assert len(text.lines([line, line * 10], 360)) == 1
