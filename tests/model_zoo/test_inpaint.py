"""Networks shaped like LaMa's two files: the hole gets the mean of what is outside of it."""

import numpy as np
import pytest

from model_zoo import cards, inpaint

torch = pytest.importorskip("torch")


class Mean(torch.nn.Module):
    """As big-lama.pt: 0 to 1 in, 0 to 1 out, sides in multiples of 8. Repaints everything, so that what is kept shows."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert image.shape[2] % 8 == 0
        assert image.shape[3] % 8 == 0
        outside = 1 - mask
        mean = (image * outside).sum(dim=(2, 3), keepdim=True) / outside.sum(dim=(2, 3), keepdim=True)
        return torch.zeros_like(image) + mean


def onnx_mean(path):
    """As LaMa-ONNX: "image" and "mask" of 512 x 512, 0 to 1, in; 0 to 255 out."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Sub", ["one", "mask"], ["outside"]),
        helper.make_node("Mul", ["image", "outside"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axes"], ["total"]),
        helper.make_node("ReduceSum", ["outside", "axes"], ["count"]),
        helper.make_node("Div", ["total", "count"], ["mean"]),
        helper.make_node("Mul", ["mean", "white"], ["grey"]),
        helper.make_node("Mul", ["image", "zero"], ["blank"]),
        helper.make_node("Add", ["blank", "grey"], ["output"]),
    ]
    numbers = {
        "one": np.float32(1),
        "white": np.float32(255),
        "zero": np.float32(0),
        "axes": np.array([2, 3], np.int64),
    }
    shapes = {"image": [1, 3, 512, 512], "mask": [1, 1, 512, 512], "output": [1, 3, 512, 512]}
    image, mask, output = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())
    known = [numpy_helper.from_array(value, name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "mean", [image, mask], [output], known)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture(scope="module", params=["lama", "lama-onnx"])
def fill(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("lama") / "lama"
    torch.jit.script(Mean()).save(str(path)) if request.param == "lama" else onnx_mean(str(path))
    return cards.load(f"{request.param}:{path}")


def room(shape=(60, 100)):
    """Grey noise with a red rectangle in it, and where that is."""
    picture = np.random.default_rng(0).integers(90, 111, (*shape, 3)).astype(np.uint8)
    mask = np.zeros(shape, bool)
    mask[13:34, 21:58] = True
    picture[mask] = (250, 0, 0)
    return picture, mask


@pytest.mark.parametrize("shape", [(60, 100), (64, 128), (45, 71), (700, 1300)])
def test_a_rectangle_is_filled_from_outside_and_everything_else_is_bit_identical(fill, shape):
    picture, mask = room(shape)
    before = picture.copy()
    out = fill(picture, mask)
    assert out.shape == picture.shape
    assert out.dtype == np.uint8
    assert np.array_equal(out[~mask], picture[~mask])
    # nothing red, though the mirrored border shows the room again
    assert np.abs(out[mask].astype(int) - 100).max() <= 3
    assert np.array_equal(picture, before)


def test_nothing_to_fill_changes_nothing_and_a_mask_of_another_size_is_refused(fill):
    picture, mask = room()
    assert np.array_equal(fill(picture, mask & False), picture)
    with pytest.raises(ValueError, match="60 x 100 pixels, but its mask 30 x 50"):
        fill(picture, mask[::2, ::2])


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("shape", [(60, 100), (40, 30), (100, 100)])
def test_the_network_sees_the_hole_where_it_is_and_paints_it_there(shape, square):
    picture, mask = np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
    mask[10:21, 5:18] = True
    seen = []

    def paint(pixels, hole):
        seen.append((pixels.shape[2:], hole[0, 0, : shape[0], : shape[1]] > 0))
        return np.tile(hole[0] * 200, (3, 1, 1))

    out = inpaint.filled(picture, mask, paint, 128, square)
    ((size, hole),) = seen
    assert size == ((128, 128) if square else tuple(-(-side // 8) * 8 for side in shape))
    assert np.array_equal(hole, mask)
    assert (out[mask] == 200).all()
    assert (out[~mask] == 0).all()


def test_a_picture_too_large_is_shown_smaller_and_its_hole_never_shrinks():
    picture, mask = np.full((300, 500, 3), 50, np.uint8), np.zeros((300, 500), bool)
    mask[101:104, 203:206] = True
    picture[mask] = 255
    seen = []

    def paint(pixels, hole):
        seen.append((pixels[0, 0], hole[0, 0]))
        return np.full((3, *pixels.shape[2:]), 50, np.float32)

    out = inpaint.filled(picture, mask, paint, 100, square=False)
    pixels, hole = seen[0]
    assert pixels.shape == (64, 104)
    assert (pixels[hole == 0] == np.float32(50 / 255)).all()  # nothing of what is taken out is left beside the hole
    assert (out == 50).all()
