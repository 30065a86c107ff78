import numpy as np
import pytest

from model_zoo import cards
from model_zoo.quality import nsfw

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path):
    """save(labels): a tiny random ViT classifier with these labels, as transformers saves it."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    def save(*labels: str):
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        config = ViTConfig(image_size=32, patch_size=8, **sizes)
        config.id2label, config.label2id = dict(enumerate(labels)), {label: n for n, label in enumerate(labels)}
        torch.manual_seed(0)
        network = ViTForImageClassification(config)
        network.classifier.weight.data *= 30
        network.save_pretrained(tmp_path)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
        return tmp_path

    return save


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 40, 60, 3)).astype(np.uint8)


def test_the_worst_frame_counts(folder):
    model = cards.load(f"falconsai-nsfw:{folder('normal', 'nsfw')}")
    many = frames(nsfw.BATCH + 4)
    each = [model(frame[None], 15.0)["nsfw"] for frame in many]
    assert 0 <= min(each) < max(each) <= 1
    assert model(many, 15.0) == {"nsfw": pytest.approx(max(each), abs=1e-5)}


def test_which_label_is_unsafe_goes_by_its_name_not_its_place(folder):
    first = cards.load(f"falconsai-nsfw:{folder('normal', 'nsfw')}")(frames(1), 15.0)["nsfw"]
    turned = cards.load(f"adamcodd-nsfw:{folder('NSFW', 'SFW')}")(frames(1), 15.0)["nsfw"]
    assert first + turned == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("labels", [("LABEL_0", "LABEL_1"), ("normal", "nsfw", "hentai"), ("cat", "dog")])
def test_ambiguous_labels_are_rejected(folder, labels):
    with pytest.raises(ValueError, match="add them to UNSAFE"):
        cards.load(f"falconsai-nsfw:{folder(*labels)}")
