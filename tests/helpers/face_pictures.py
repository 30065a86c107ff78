"""Pictures with faces, and what tests of face models measure on them."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def six_people() -> np.ndarray:
    """Six actors in a row, 886 x 1280 RGB: the picture that comes inside the package insightface."""
    spec = importlib.util.find_spec("insightface")
    if spec is None or spec.origin is None:
        pytest.skip("insightface is not installed")
    return read(Path(spec.origin).parent / "data" / "images" / "t1.jpg")


def read(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


def iou(a, b) -> float:
    width, height = (max(0.0, min(a[2 + i], b[2 + i]) - max(a[i], b[i])) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def tiny_recogniser(path: Path, dim: int = 128) -> None:
    """An ONNX file of a recogniser's shape, (1, 3, 112, 112) to (1, dim), that mixes the mean colours of 7 x 7 squares."""
    mix = np.random.default_rng(0).standard_normal((147, dim)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["data"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "mix"], ["fc1"]),
    ]
    taken = helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 112, 112])
    given = helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, dim])
    graph = helper.make_graph(nodes, "tiny", [taken], [given], [numpy_helper.from_array(mix, "mix")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
