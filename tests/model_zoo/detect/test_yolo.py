from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from model_zoo import cards, roles, weights
from model_zoo.detect import yolo

torch = pytest.importorskip("torch")
pytest.importorskip("ultralytics")


@pytest.fixture
def bus(corpus):
    return cv2.cvtColor(cv2.imread(str(corpus / "images" / "bus.jpg")), cv2.COLOR_BGR2RGB)


def result(boxes, scores, classes, masks=None):
    of = SimpleNamespace(xyxy=torch.tensor(boxes), conf=torch.tensor(scores), cls=torch.tensor(classes))
    return SimpleNamespace(
        boxes=of, names={0: "person", 5: "bus"}, masks=masks and SimpleNamespace(data=torch.tensor(masks))
    )


def test_people_are_human_and_the_rest_objects_best_first():
    found = yolo.read_result(
        result([[1.0, 2, 30, 40], [50, 5, 90, 60]], [0.5, 0.9], [0.0, 5.0]), np.zeros((64, 96, 3), np.uint8)
    )
    assert [(d.kind, d.label, d.score) for d in found] == [
        ("object", "bus", pytest.approx(0.9)),
        ("human", "person", 0.5),
    ]


def test_boxes_end_at_the_frame_and_empty_ones_are_dropped():
    found = yolo.read_result(
        result([[-5.0, 2, 30, 80], [97.0, 5, 120, 60]], [0.5, 0.9], [0.0, 0.0]), np.zeros((64, 96, 3), np.uint8)
    )
    assert [d.box for d in found] == [(0, 2, 30, 64)]


def test_a_box_without_a_mask_gets_one_from_its_pixels():
    frame = np.full((120, 160, 3), 200, np.uint8)
    truth = cv2.ellipse(np.zeros((120, 160), np.uint8), (80, 60), (25, 40), 0, 0, 360, 1, -1) > 0
    frame[truth] = (30, 60, 160)
    (found,) = yolo.read_result(result([[54.0, 19, 107, 102]], [0.8], [0.0]), frame)
    assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.95


@pytest.mark.parametrize("shape", [(480, 640), (640, 360), (333, 501)])
def test_a_mask_drawn_in_the_letterboxed_picture_comes_back_where_it_was_drawn(shape):
    from ultralytics.utils import ops

    yolo.keep_offline()
    height, width = shape
    gain = 320 / max(shape)
    left, top = (320 - width * gain) / 2, (320 - height * gain) / 2
    box = np.array([0.3 * width, 0.25 * height, 0.6 * width, 0.75 * height])
    x0, y0, x1, y1 = box * gain + [left, top, left, top]
    prototype = torch.full((1, 320, 320), -1.0)
    prototype[0, round(y0) : round(y1), round(x0) : round(x1)] = 1.0
    mask = ops.process_mask_native(prototype, torch.ones(1, 1), torch.tensor([[0.0, 0, width, height]]), shape)[0]
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    assert np.abs(np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]) - box).max() <= 1.5 / gain


def bright(self, letterboxed, *args, **kwargs):
    """In the network's place: a thing wherever the picture that the network is given is bright, with a mask of 4 px cells."""
    count, _, height, width = letterboxed.shape
    rows, prototypes = torch.zeros(count, 4 + 80 + 32, 1), torch.zeros(count, 32, height // 4, width // 4)
    for n, here in enumerate(letterboxed.mean(1) > 0.75):
        ys, xs = here.any(1).nonzero(), here.any(0).nonzero()
        x0, y0, x1, y1 = xs[0, 0], ys[0, 0], xs[-1, 0] + 1, ys[-1, 0] + 1
        rows[n, :4, 0] = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
        rows[n, 4, 0], rows[n, 84, 0] = 0.9, 1.0
        prototypes[n, 0] = torch.nn.functional.avg_pool2d(here[None, None].float(), 4)[0, 0] * 2 - 1
    return (rows, prototypes), None


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((480, 640), (80, 120, 240, 400)),
        ((360, 640), (64, 40, 320, 200)),  # bars above and below
        ((640, 360), (40, 64, 200, 320)),  # at the sides
        ((240, 320), (40, 60, 120, 200)),  # enlarged twice
    ],
)
def test_a_rectangle_goes_through_the_letterbox_and_comes_back_to_the_pixel(tmp_path, monkeypatch, shape, box):
    yolo.keep_offline()
    from ultralytics import YOLO
    from ultralytics.engine.predictor import BasePredictor

    YOLO("yolo11n-seg.yaml").save(tmp_path / "mine.pt")
    model = cards.load(f"yolo:{tmp_path / 'mine.pt'}")
    monkeypatch.setattr(BasePredictor, "inference", bright)
    x0, y0, x1, y1 = box
    frame = np.full((*shape, 3), 40, np.uint8)
    frame[y0:y1, x0:x1] = 255
    ((found,),) = model(frame[None])
    assert np.abs(np.subtract(found.box, box)).max() <= 0.5
    ys, xs = np.flatnonzero(found.mask.any(1)), np.flatnonzero(found.mask.any(0))
    assert np.abs(np.subtract((xs[0], ys[0], xs[-1] + 1, ys[-1] + 1), box)).max() <= 1


def test_missing_weights_are_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no weights at yolo11n-seg\.pt or .*A2DATA_WEIGHTS"):
        yolo.detector(roles.Card("detect", "", weights="yolo11n-seg.pt"), "cpu")


def test_weights_are_found_by_name_in_their_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    (tmp_path / "mine.pt").touch()
    assert weights.find(roles.Card("detect", "", weights="mine.pt")) == tmp_path / "mine.pt"


def test_four_people_and_the_bus_are_found_with_masks_from_boxes(corpus, bus):
    model = cards.load(f"yolo:{corpus}/weights/yolov8n_int8_640.onnx")
    (found,) = model(bus[None])
    assert sorted(d.label for d in found if d.score > 0.25) == ["bus", "person", "person", "person", "person"]
    assert all(d.mask.shape == bus.shape[:2] and d.mask.any() for d in found)


def test_segments_fill_their_boxes_and_a_batch_is_its_frames_one_by_one(corpus, bus):
    model = cards.load(f"yolo:{corpus}/weights/yolov8n-seg_int8_320.onnx")
    batch = model(np.stack([bus, bus[:, ::-1]]))
    for frame, together in zip((bus, bus[:, ::-1]), batch, strict=True):
        (alone,) = model(frame[None])
        assert [d[:4] for d in alone] == [d[:4] for d in together]
        assert all(np.array_equal(a.mask, b.mask) for a, b in zip(alone, together, strict=True))
    for d in (d for d in batch[0] if d.score > 0.5):
        xs, ys = np.flatnonzero(d.mask.any(0)), np.flatnonzero(d.mask.any(1))
        # one cell of the prototypes
        assert np.abs(np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]) - d.box).max() < 1080 / 80


def test_a_card_is_known_by_its_weights_which_must_be_those_that_it_pins(tmp_path, monkeypatch):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"yolo11n-seg\.pt"):
        cards.revision("yolo11n-seg")
    weights = tmp_path / "yolo11n-seg.pt"
    weights.write_bytes(b"some weights")
    with pytest.raises(ValueError, match=r"yolo11n-seg.*sha256"):
        cards.revision("yolo11n-seg")
    assert cards.revision(f"yolo:{weights}") == cards.digest(str(weights))


def test_a_file_that_is_not_a_model_is_named(tmp_path):
    wrong = tmp_path / "holiday.onnx"
    wrong.write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"holiday\.onnx cannot be read"):
        cards.load(f"yolo:{wrong}")
