import numpy as np
import pytest
from tiny_sapiens2 import tiny_sapiens2

from model_zoo import cards

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):

    from transformers import Sapiens2ForImageMatting, Sapiens2ImageProcessor

    folder = tmp_path_factory.mktemp("matting")
    torch.manual_seed(0)
    Sapiens2ForImageMatting(tiny_sapiens2(4)).save_pretrained(folder)
    Sapiens2ImageProcessor(size={"height": 64, "width": 48}).save_pretrained(folder)
    return folder


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(64, 48), (90, 30), (30, 90), (128, 96), (64, 48), (50, 50)]  # more than a batch
    return [rng.integers(0, 255, (*size, 3), np.uint8) for size in sizes]


def test_each_picture_has_an_alpha_of_its_size_and_a_batch_is_as_one_by_one(folder):
    matte = cards.load(f"sapiens2-matting-1b:{folder}")
    together = matte(pictures())
    assert [a.shape for a in together] == [p.shape[:2] for p in pictures()]
    for alpha, picture in zip(together, pictures(), strict=True):
        (alone,) = matte([picture])
        assert alpha == pytest.approx(alone, abs=1e-5)
        assert alpha.dtype == np.float32
        assert 0 <= alpha.min() < alpha.max() <= 1
    assert matte([]) == []


def test_the_alpha_is_the_fourth_of_what_the_network_says(folder):
    from transformers import AutoImageProcessor, Sapiens2ForImageMatting

    picture = pictures()[0]
    with torch.inference_mode():
        pixels = AutoImageProcessor.from_pretrained(folder)(images=[picture], return_tensors="pt")
        said = Sapiens2ForImageMatting.from_pretrained(folder)(**pixels)
    (alpha,) = cards.load(f"sapiens2-matting-1b:{folder}")([picture])
    small = torch.nn.functional.interpolate(said.alphas, size=(64, 48), mode="bilinear")[0, 0].numpy()
    assert alpha == pytest.approx(small, abs=1e-5)
