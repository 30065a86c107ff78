"""YOLOE with its text encoder, both small and random; see model_zoo/detect/grounding.py."""

import shutil

import numpy as np
import pytest

from model_zoo import cards
from model_zoo.detect import grounding, yolo

torch = pytest.importorskip("torch")
pytest.importorskip("ultralytics")
pytest.importorskip("open_clip")
yolo.keep_offline()

FRAMES = np.random.default_rng(0).integers(0, 255, (2, 96, 128, 3)).astype(np.uint8)


class Encoder(torch.nn.Module):
    """Tokens to vectors as MobileCLIP's text encoder does it, less the transformer."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(49408, 512)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table(tokens).mean(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from ultralytics import YOLOE

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("yoloe")
    model = YOLOE("yoloe-11n-seg.yaml")
    model.save(path / "mine.pt")
    torch.jit.script(Encoder()).save(path / "mobileclip_blt.ts")
    return path


@pytest.fixture
def weights(folder, monkeypatch):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(folder))
    monkeypatch.setattr(grounding, "CONFIDENCE", 1e-5)  # random networks are sure of nothing
    return folder


def test_it_finds_by_the_phrases_of_each_call_and_a_batch_is_its_frames_one_by_one(weights):
    model = cards.load(f"yoloe:{weights / 'mine.pt'}")
    both = model(FRAMES, ["red cup", "dog"])
    assert {d.label for here in both for d in here} <= {"red cup", "dog"}
    assert all(d.mask.shape == (96, 128) and d.mask.dtype == bool for here in both for d in here)
    assert any(both)
    (alone,) = model(FRAMES[1:], ["red cup", "dog"])
    assert [d.label for d in alone] == [d.label for d in both[1]]
    assert np.abs(np.subtract([d.box for d in alone], [d.box for d in both[1]])).max() < 0.1
    assert {d.label for here in model(FRAMES, ["bottle"]) for d in here} == {"bottle"}
    assert model(FRAMES, []) == [[], []]


def test_phrases_are_unit_vectors_and_each_its_own(weights):
    vectors = cards.load("mobileclip-blt")(["a cup", "a dog", "a cup"])
    assert vectors.shape == (3, 512)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(3), atol=1e-5)
    assert torch.equal(vectors[0], vectors[2])
    assert not torch.allclose(vectors[0], vectors[1])


def test_the_missing_text_encoder_is_a_sentence(folder, tmp_path, monkeypatch):
    shutil.copy(folder / "mine.pt", tmp_path)
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"'mobileclip-blt' has no weights at .*mobileclip_blt\.ts"):
        cards.load(f"yoloe:{tmp_path / 'mine.pt'}")


def test_the_text_encoder_is_the_one_that_the_network_was_trained_with():
    assert grounding.text_card(torch.nn.Module()) == "mobileclip-blt"
    newer = torch.nn.Module()
    newer.text_model = "mobileclip2:b"
    assert grounding.text_card(newer) == "mobileclip2-b"


def test_a_yolo_without_phrases_and_a_file_that_is_none_are_sentences(tmp_path):
    from ultralytics import YOLO

    YOLO("yolo11n.yaml").save(tmp_path / "plain.pt")
    (tmp_path / "holiday.pt").write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"plain\.pt (accepts no phrases|cannot be read as YOLOE)"):
        cards.load(f"yoloe:{tmp_path / 'plain.pt'}")
    with pytest.raises(ValueError, match=r"holiday\.pt cannot be read as YOLOE weights"):
        cards.load(f"yoloe:{tmp_path / 'holiday.pt'}")
    with pytest.raises(ValueError, match=r"holiday\.pt cannot be read as TorchScript"):
        cards.load(f"mobileclip-blt:{tmp_path / 'holiday.pt'}")
