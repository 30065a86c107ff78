"""The expert for expressions, with a small network of the published one's input and output."""

from itertools import islice
from pathlib import Path

import cv2
import mediapipe_networks
import numpy as np
import pytest
from skimage.data import astronaut

from a2data.media import video
from model_zoo import cards
from model_zoo.caption import expression
from model_zoo.caption.measured import ElementHint

onnx = pytest.importorskip("onnx")
SCENE = {"subjects": [{"thing": "p", "TYPES": {"type": "Human", "sub_type": "Person"}}]}


def network(folder: Path, batch: int | str = 1, size: int = 112) -> str:
    """A card by path: 7 scores that depend on the mean brightness b, -1 to 1: happy has 9 b, neutral 0, sad -9 b."""
    weight = np.zeros((3, 7), np.float32)
    weight[:, 3], weight[:, 5] = 3, -3
    nodes = [
        onnx.helper.make_node("ReduceMean", ["data", "axes"], ["colour"], keepdims=0),
        onnx.helper.make_node("MatMul", ["colour", "weight"], ["label"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
        onnx.numpy_helper.from_array(weight, "weight"),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "brightness",
        [onnx.helper.make_tensor_value_info("data", kind, [batch, 3, size, size])],
        [onnx.helper.make_tensor_value_info("label", kind, [batch, 7])],
        constants,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "brightness.onnx")
    return f"expression:{folder / 'brightness.onnx'}"


def person_and_face(*boxes: tuple, **attributes: str) -> list[ElementHint]:
    times = np.linspace(0, 20, len(boxes)).astype(int).tolist()
    head = [tuple(map(float, b)) for b in boxes]
    return [
        ElementHint("p", "human", "person", "", times, [(100.0, 20.0, 220.0, 180.0)] * len(times), {}),
        ElementHint("p/face", "face", "face", "p", times, head, attributes),
    ]


HEAD = (130.0, 30.0, 190.0, 110.0)  # 60 wide, 80 high: eyes and mouth are 20 px apart


def test_a_bright_face_is_happy_and_a_dark_one_sad(tmp_path):
    expert = cards.load(network(tmp_path))
    bright, dark = np.full((21, 180, 320, 3), 200, np.uint8), np.full((21, 180, 320, 3), 30, np.uint8)
    things = person_and_face(HEAD, HEAD, HEAD)
    ((field, value, sure),) = expert(bright, 15.0, things, SCENE)
    assert (field, value) == ("subjects.0.expression", "happy")
    b = 200 / 127.5 - 1
    assert sure == pytest.approx(np.exp(9 * b) / (np.exp(9 * b) + np.exp(-9 * b) + 5), abs=1e-4)
    assert expert(dark, 15.0, things, SCENE)[0][1] == "sad"


def test_a_face_that_changes_is_told_with_both_expressions(tmp_path):
    expert = cards.load(network(tmp_path))
    frames = np.full((21, 180, 320, 3), 30, np.uint8)
    frames[11:] = 220
    ((_, value, sure),) = expert(frames, 15.0, person_and_face(*[HEAD] * 6), SCENE)
    assert value == "sad, then happy"
    assert sure > expression.MIN_CHANGE_PROBABILITY


def test_nothing_is_said_of_a_person_without_a_face_or_with_one_too_small_or_turned(tmp_path):
    expert = cards.load(network(tmp_path))
    frames = np.full((21, 180, 320, 3), 200, np.uint8)
    assert expert(frames, 15.0, person_and_face(HEAD)[:1], SCENE) == []
    assert expert(frames, 15.0, person_and_face((130, 30, 142, 46)), SCENE) == []
    assert expert(frames, 15.0, person_and_face(HEAD, yaw="0.9"), SCENE) == []
    assert expert(frames, 15.0, [], {"subjects": []}) == []


@pytest.mark.parametrize("batch", [1, 4, "n"])
def test_a_batch_equals_one_by_one_whatever_the_network_takes_at_once(tmp_path, batch):
    classify = expression.network(cards.card(network(tmp_path, batch)))
    faces = np.random.default_rng(0).integers(0, 256, (37, 112, 112, 3)).astype(np.uint8)
    faces[::2] //= 3
    together, alone = classify(faces), np.concatenate([classify(face[None]) for face in faces])
    assert together.shape == (37, 7)
    assert together.sum(axis=1) == pytest.approx(np.ones(37), abs=1e-5)
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_network_for_other_pictures_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"112"):
        cards.load(network(tmp_path, size=64))


def test_weights_that_are_not_there_are_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="models fetch fer-mobilefacenet"):
        cards.load("fer-mobilefacenet")


def drawn(tilt: float, size: tuple[int, int] = (360, 640), middle: tuple = (300.0, 150.0), far: float = 30.0):
    """A frame with a red dot between the eyes and a blue one on the mouth of a tilted head, and the head's box."""
    frame = np.full((*size, 3), 90, np.uint8)
    down = far * np.array([np.cos(np.radians(tilt + 90)), np.sin(np.radians(tilt + 90))])
    eyes = np.array(middle)
    for point, colour in ((eyes, (255, 0, 0)), (eyes + down, (0, 0, 255))):
        cv2.circle(frame, tuple(np.rint(point).astype(int).tolist()), 3, colour, -1)
    x, y = eyes - 0.2 * down
    box = (max(0.0, x - 1.5 * far), max(0.0, y - 2 * far), min(size[1], x + 1.5 * far), min(size[0], y + 2 * far))
    return frame, box


def spot(face: np.ndarray, channel: int) -> tuple[float, float]:
    """The middle of what is red or blue, x and y."""
    rows, columns = np.nonzero(face[..., channel].astype(int) - face[..., 1] > 80)
    return float(columns.mean()), float(rows.mean())


@pytest.mark.parametrize("tilt", [0.0, 12.0, -20.0])
def test_eyes_and_mouth_come_to_lie_where_the_network_expects_them(tilt):
    frame, box = drawn(tilt)
    face = expression.aligned(frame, box, tilt)
    assert face.shape == (112, 112, 3)
    assert spot(face, 0) == pytest.approx(expression.EYES, abs=1.2)
    assert spot(face, 2) == pytest.approx(expression.MOUTH, abs=1.2)


@pytest.mark.parametrize("middle", [(300.0, 40.0), (35.0, 150.0), (615.0, 150.0), (300.0, 320.0)])
def test_a_head_that_the_border_cuts_off_is_aligned_all_the_same(middle):
    frame, box = drawn(0.0, middle=middle)
    face = expression.aligned(frame, box)
    assert spot(face, 0) == pytest.approx(expression.EYES, abs=1.5)


def test_real_faces_have_their_eyes_where_the_network_expects_them(corpus):
    """The faces stage keeps only the head's box: the eyes found in the picture must come out of it again."""
    from stages.faces import head_box, roll

    pytest.importorskip("dlib")
    frame = cv2.imread(str(corpus / "images" / "zidane.jpg"), cv2.IMREAD_COLOR_RGB)
    found = cards.load("dlib")(frame)
    assert found
    for face in found:
        box = head_box(face.landmarks, *frame.shape[:2])
        marked = frame.copy()
        marked[:] = 90
        eyes = face.landmarks[:2].mean(0)
        cv2.circle(marked, tuple(np.rint(eyes).astype(int).tolist()), 6, (255, 0, 0), -1)
        assert spot(expression.aligned(marked, box, roll(face.landmarks)), 0) == pytest.approx(expression.EYES, abs=5)


def smile(frame: np.ndarray, head: tuple[float, float, float, float]) -> list[tuple[str, str, float]]:
    face = ElementHint("f", "face", "face", "p", [0], [head], {})
    person = ElementHint("p", "human", "person", "", [0], [head], {})
    expert = mediapipe_networks.network("builtin-expression")
    return expert(frame[None], 15.0, [person, face], SCENE)


def test_a_smiling_portrait_is_called_smiling():
    assert smile(astronaut(), (160.0, 20.0, 290.0, 195.0)) == [("subjects.0.expression", "smiling", 0.7)]


def test_nothing_is_said_where_there_is_no_face():
    assert smile(astronaut(), (20.0, 330.0, 110.0, 450.0)) == []


def test_nothing_is_said_of_a_person_who_does_not_smile(corpus):
    (frame,) = islice(video.read(str(corpus / "video" / "intel_asl_book.mkv")), 1)
    assert smile(frame.picture.to_ndarray(format="rgb24"), (259.0, 68.0, 336.0, 171.0)) == []
