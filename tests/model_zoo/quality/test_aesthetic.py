import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from model_zoo import cards
from model_zoo.catalogue import CARDS
from model_zoo.quality import aesthetic

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 64, "heads": 2, "layers": 1},
}
HEADS = ["sac+logos+ava1-l14-linearMSE.pth", "sa_0_4_vit_l_14_linear.pth", "sa_0_4_vit_b_32_linear.pth"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder like the hub's for open_clip, with a tiny random CLIP whose embeddings have 32 numbers."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    network = open_clip.CLIP(**TINY)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def unit(count: int, width: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [np.kron(rng.integers(0, 256, (4, 5, 3)), np.ones((12, 12, 1))).astype(np.uint8) for _ in range(count)]


def read(path):
    return torch.load(path, map_location="cpu", weights_only=True)


@pytest.mark.parametrize("name", HEADS)
def test_a_published_head_is_the_product_of_its_layers(corpus, name):
    path = corpus / "weights" / name
    state = {key: value.double().numpy() for key, value in read(path).items()}
    width = next(iter(state.values())).shape[1]
    vectors = unit(50, width)
    expected = vectors.astype(np.float64)
    for key in [key for key in state if key.endswith("weight")]:
        expected = expected @ state[key].T + state[key.replace("weight", "bias")]
    found = aesthetic.head(path)(vectors)
    assert found.shape == (50,)
    assert found == pytest.approx(expected[:, 0], abs=1e-4)
    assert -3 < found.min() < found.max() < 12


def test_a_head_for_another_width_says_so(corpus):
    with pytest.raises(ValueError, match="embeddings of 768 dimensions, got 32"):
        aesthetic.head(corpus / "weights" / HEADS[0])(unit(1, 32))


@pytest.mark.parametrize("state", [{"layers.0.weight": (8, 4)}, {"weight": (1, 4)}, {"conv": (1,)}])
def test_another_file_is_rejected_as_a_head(tmp_path, state):
    torch.save({key: torch.zeros(shape) for key, shape in state.items()}, tmp_path / "head.pth")
    with pytest.raises(ValueError, match="not an aesthetic head"):
        aesthetic.head(tmp_path / "head.pth")


def test_pictures_become_rows_of_unit_length_the_same_alone_and_together(tiny):
    model = cards.load(f"clip-vit-l14:{tiny}")
    rows = model(pictures(aesthetic.BATCH + 3))
    assert rows.shape == (aesthetic.BATCH + 3, 32)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.allclose(rows, np.concatenate([model([p]) for p in pictures(aesthetic.BATCH + 3)]), atol=1e-5)
    assert model([]).shape == (0, 32)


def test_only_the_middle_square_is_looked_at(tiny):
    model = cards.load(f"clip-vit-l14:{tiny}")
    wide = np.full((40, 100, 3), 200, np.uint8)
    wide[:, 30:70] = pictures(1)[0][:40, :40]
    other = wide.copy()
    other[:, :20] = 0
    assert np.allclose(model([wide]), model([other]), atol=1e-4)


def test_a_folder_that_is_not_open_clips_says_so(tmp_path):
    with pytest.raises(ValueError, match="no open_clip_config"):
        cards.load(f"clip-vit-l14:{tmp_path}")


@pytest.fixture
def installed(tiny, tmp_path, monkeypatch):
    """A folder of weights in which the CLIP that the head is on is found by its name; and a head of its width."""
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(CARDS, "laion-aesthetic-v1", replace(CARDS["laion-aesthetic-v1"], sha256=""))
    shutil.copytree(tiny, tmp_path / "vit_large_patch14_clip_224.openai")
    torch.manual_seed(1)
    head = torch.nn.Linear(32, 1)
    torch.save(head.state_dict(), tmp_path / "sa_0_4_vit_l_14_linear.pth")
    return head.requires_grad_(False)


def test_the_score_of_a_clip_is_the_mean_of_its_frames_by_clip_and_head(installed, tiny):
    frames = np.stack(pictures(3))
    vectors = torch.from_numpy(cards.load(f"clip-vit-l14:{tiny}")(list(frames)))
    found = cards.load("laion-aesthetic-v1")(frames, 15.0)
    assert found == {"aesthetic": pytest.approx(float(installed(vectors).mean()), abs=1e-5)}


def test_the_resume_key_of_a_head_names_its_clip_too(installed, tmp_path):
    before = cards.revision("laion-aesthetic-v1")
    (tmp_path / "vit_large_patch14_clip_224.openai" / "more.txt").write_text("another tower")
    cards.digest.cache_clear()
    assert cards.revision("laion-aesthetic-v1") != before


def test_without_its_clip_a_head_says_what_is_missing(installed, tmp_path):
    shutil.rmtree(tmp_path / "vit_large_patch14_clip_224.openai")
    with pytest.raises(FileNotFoundError, match="clip-vit-l14"):
        cards.load("laion-aesthetic-v1")


def test_every_card_on_another_names_one_that_gives_vectors():
    heads = [card for card in CARDS.values() if card.companions and card.role == "quality"]
    assert {CARDS[name].role for card in heads for name in card.companions} == {"copy"}
    assert all(replace(card).gpus == 0.25 for card in heads)
