"""The parsers' real code over tiny networks of the real classes, made here."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from model_zoo import cards
from model_zoo.parse.sapiens_segformer import (
    ATR,
    GOLIATH,
    GOLIATH_WITH_GLASSES,
    PARTS,
    labels,
    parts,
    without_specks,
)

torch = pytest.importorskip("torch")
ANY = np.random.default_rng(0).integers(0, 255, (90, 50, 3), np.uint8)
from tiny_sapiens2 import tiny_sapiens2  # noqa: E402


class Red(torch.nn.Module):
    """Says "Upper_Clothing" where the picture is red, "Lower_Clothing" where it is blue, at half the size, like Sapiens."""

    def __init__(self, classes: int = 28):
        super().__init__()
        self.classes, self.upper, self.lower = classes, GOLIATH.index("Upper_Clothing"), GOLIATH.index("Lower_Clothing")

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.avg_pool2d(pixels, 2)
        out = torch.zeros(small.shape[0], self.classes, small.shape[2], small.shape[3])
        out[:, self.upper] = small[:, 0] - small[:, 2] - 2
        out[:, self.lower] = small[:, 2] - small[:, 0] - 2
        return out


@pytest.fixture(scope="module")
def sapiens(tmp_path_factory):
    path = tmp_path_factory.mktemp("sapiens") / "tiny_torchscript.pt2"
    torch.jit.script(Red()).save(str(path))
    return cards.load(f"sapiens-seg-1b:{path}")


@pytest.fixture(scope="module")
def sapiens2(tmp_path_factory):
    """A folder with a random Sapiens 2 of 64 x 48 and its processor."""

    from transformers import Sapiens2ForSemanticSegmentation, Sapiens2ImageProcessor

    folder = tmp_path_factory.mktemp("sapiens2")
    torch.manual_seed(0)
    Sapiens2ForSemanticSegmentation(tiny_sapiens2(29)).save_pretrained(folder)
    Sapiens2ImageProcessor(size={"height": 64, "width": 48}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    """A folder with a random SegFormer of 18 classes and its processor."""

    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    folder = tmp_path_factory.mktemp("segformer")
    torch.manual_seed(1)
    config = SegformerConfig(
        num_labels=18,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        initializer_range=0.5,
    )
    network = SegformerForSemanticSegmentation(config).eval()
    with torch.inference_mode():  # without this one class would win everywhere
        middle = network(torch.randn(1, 3, 64, 64)).logits.mean((0, 2, 3))
    network.decode_head.classifier.bias.data -= middle.clone()
    network.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("size", [(480, 200), (200, 480), (1500, 700), (64, 48)])
def test_red_and_blue_clothes_come_back_to_the_pixel_whatever_the_crops_proportions(sapiens, size):
    height, width = size
    person = np.full((*size, 3), 120, np.uint8)
    top, bottom = (height // 8, height // 2), (height // 2, 7 * height // 8)
    across = slice(width // 4, 3 * width // 4)
    person[slice(*top), across] = (230, 20, 30)
    person[slice(*bottom), across] = (20, 30, 230)
    found = sapiens(person, np.ones(size, bool), None)
    assert set(found) == {"upper", "lower"}
    scale = max(1.0, height / 512, width / 384)  # of a cell of the network's map in pixels
    for part, rows in (("upper", top), ("lower", bottom)):
        x, y, wide, high = cv2.boundingRect(found[part].astype(np.uint8))
        assert (x, y, x + wide, y + high) == pytest.approx(
            (across.start, rows[0], across.stop, rows[1]), abs=1 + 1.5 * scale
        )
        assert found[part].sum() == pytest.approx((rows[1] - rows[0]) * (across.stop - across.start), rel=0.12)
    assert not (found["upper"] & found["lower"]).any()


def test_parts_stay_inside_the_mask(sapiens):
    person = np.full((120, 90, 3), (230, 20, 30), np.uint8)
    mask = np.zeros((120, 90), bool)
    mask[30:60, 20:70] = True
    found = sapiens(person, mask, (30.0, 0.0, 60.0, 30.0))
    assert (found["upper"] == mask).all()


def test_another_number_of_classes_and_a_file_of_another_kind_are_refused(tmp_path):
    torch.jit.script(Red(30)).save(str(tmp_path / "thirty.pt2"))
    with pytest.raises(ValueError, match=r"thirty.pt2 has 30 classes, this card needs 28"):
        cards.load(f"sapiens-seg-0.3b:{tmp_path / 'thirty.pt2'}")(ANY, np.ones(ANY.shape[:2], bool), None)
    (tmp_path / "no.pt2").write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"no.pt2 cannot be read as TorchScript"):
        cards.load(f"sapiens-seg-0.3b:{tmp_path / 'no.pt2'}")


@pytest.mark.parametrize(
    ("family", "names", "size"),
    [("sapiens2-seg-0.4b", GOLIATH_WITH_GLASSES, (128, 96)), ("segformer-clothes", ATR, (130, 70))],
)
def test_a_transformers_parts_are_those_of_its_own_post_processing(request, family, names, size):
    folder = request.getfixturevalue("sapiens2" if "sapiens2" in family else "segformer")
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation  # where torchvision can be imported

    person = cv2.GaussianBlur(np.random.default_rng(2).integers(0, 255, (*size, 3), np.uint8), (0, 0), 3)
    found = cards.load(f"{family}:{folder}")(person, np.ones(size, bool), None)
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        told = AutoModelForSemanticSegmentation.from_pretrained(folder)(
            **processor(images=[person], return_tensors="pt")
        )
    (classes,) = processor.post_process_semantic_segmentation(told, target_sizes=[size])
    expected = parts(classes.numpy(), names, np.ones(size, bool))
    assert len(np.unique(classes.numpy())) > 3
    assert set(found) == set(expected)
    for part, mask in found.items():
        assert mask.shape == size
        assert mask.dtype == bool
        assert (mask == expected[part]).mean() > 0.999


def test_sapiens_sees_what_its_authors_show_it(tmp_path):
    """lite/demo/adhoc_image_dataset.py: cv2.resize to 768 x 1024, red first, less the mean, by the deviation."""

    class Keep(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            assert pixels.shape == (1, 3, 1024, 768)
            return torch.cat([pixels, torch.zeros(1, 25, 1024, 768)], 1)

    torch.jit.script(Keep()).save(str(tmp_path / "keep.pt2"))
    seen: list = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("model_zoo.parse.sapiens_segformer.labels", lambda logits, size, *_: seen.append(logits) or ANY)
        patched.setattr("model_zoo.parse.sapiens_segformer.parts", lambda *_: {})
        cards.load(f"sapiens-seg-1b:{tmp_path / 'keep.pt2'}")(ANY, np.ones(ANY.shape[:2], bool), None)
    theirs = torch.from_numpy(cv2.resize(ANY, (768, 1024), interpolation=cv2.INTER_LINEAR)).permute(2, 0, 1).float()
    mean, std = torch.tensor([123.5, 116.5, 103.5]), torch.tensor([58.5, 57.0, 57.5])
    assert torch.allclose(seen[0][:3], (theirs - mean[:, None, None]) / std[:, None, None], atol=1e-5)


def test_a_network_of_other_classes_is_refused(segformer):
    card = replace(cards.card(f"sapiens2-seg-0.4b:{segformer}"), builder="model_zoo.parse.sapiens_segformer:segformer")
    assert cards.load(f"segformer-clothes:{segformer}")(ANY, np.ones(ANY.shape[:2], bool), None) is not None
    with pytest.raises(ValueError, match="has 18 classes, this card needs 29"):
        labels(torch.zeros(18, 4, 4), (8, 8), GOLIATH_WITH_GLASSES, card.weights)


def test_a_rectangle_in_the_logits_comes_back_to_the_pixel():
    logits = torch.zeros(28, 64, 48)
    logits[GOLIATH.index("Hair"), 8:24, 12:36] = 9
    for scale in (1, 2, 4):
        classes = labels(logits, (64 * scale, 48 * scale), GOLIATH, "w")
        hair = parts(classes, GOLIATH, np.ones(classes.shape, bool))["hair"]
        expected = np.zeros_like(hair)
        expected[8 * scale : 24 * scale, 12 * scale : 36 * scale] = True
        assert cv2.boundingRect(hair.astype(np.uint8)) == pytest.approx(
            cv2.boundingRect(expected.astype(np.uint8)), abs=scale
        )


def test_every_word_of_a_part_is_a_class_of_some_network_and_of_one_part_only():
    known = {*GOLIATH_WITH_GLASSES, *ATR}
    words = [word for members in PARTS.values() for word in members]
    assert set(words) <= known
    assert len(words) == len(set(words))
    assert (len(GOLIATH), len(GOLIATH_WITH_GLASSES), len(ATR)) == (28, 29, 18)
    assert [GOLIATH.index(n) for n in ("Face_Neck", "Hair", "Lower_Clothing", "Upper_Clothing", "Tongue")] == [
        2,
        3,
        12,
        22,
        27,
    ]
    assert GOLIATH_WITH_GLASSES.index("Upper_Clothing") == 23
    assert [ATR.index(n) for n in ("Hat", "Upper-clothes", "Face", "Bag", "Scarf")] == [1, 4, 11, 16, 17]


def test_specks_go_and_both_shoes_stay():
    mask = np.zeros((60, 60), bool)
    mask[10:30, 5:15] = mask[12:30, 40:50] = mask[50:52, 50:52] = True
    kept = without_specks(mask)
    assert kept[20, 10]
    assert kept[20, 45]
    assert not kept[50:].any()
    assert not without_specks(np.zeros((5, 5), bool)).any()
