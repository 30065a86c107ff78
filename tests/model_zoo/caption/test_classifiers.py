"""Classifiers of shots and cameras, with tiny random networks of the real classes."""

from pathlib import Path

import numpy as np
import pytest

from model_zoo import cards
from model_zoo.caption import classifiers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SCALES = {0: "ECS", 1: "CS", 2: "MS", 3: "FS", 4: "LS"}
FRAMES = np.random.default_rng(0).integers(0, 256, (31, 90, 160, 3)).astype(np.uint8)


def labelled(labels: dict[int, str]) -> dict:
    return {"id2label": labels, "label2id": {label: i for i, label in labels.items()}}


def video_checkpoint(folder: Path, labels: dict[int, str], **more: object) -> Path:
    """A VideoMAE of 6 frames of 32 px."""
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=6,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.5,
        **labelled(labels),
        **more,
    )
    transformers.VideoMAEForVideoClassification(config).save_pretrained(folder)
    transformers.VideoMAEImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder


def image_checkpoint(folder: Path, labels: dict[int, str]) -> Path:
    """A ViT of 32 px."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.5,
        **labelled(labels),
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_a_video_classifier_answers_as_the_network_itself_does(tmp_path):
    folder = video_checkpoint(tmp_path, SCALES)
    ((field, value, sure),) = cards.load(f"classifier:{folder}")(FRAMES, 15.0, [], {})
    chosen = [FRAMES[i] for i in (0, 6, 12, 18, 24, 30)]
    pixels = transformers.VideoMAEImageProcessor.from_pretrained(folder)(chosen, return_tensors="pt")["pixel_values"]
    network = transformers.VideoMAEForVideoClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = network(pixel_values=pixels).logits.softmax(-1)[0]
    names = ("extreme_close_up", "close_up", "medium_shot", "full_shot", "long_shot")
    assert (field, value) == ("shot_type", names[int(expected.argmax())])
    assert sure == pytest.approx(float(expected.max()), abs=1e-4)


def test_an_image_classifier_averages_its_frames_in_bounded_batches(tmp_path, monkeypatch):
    expert_of = image_checkpoint(tmp_path, {0: "closeUp", 1: "detail", 2: "longShot", 3: "mediumShot", 4: "fullShot"})
    together = cards.load(f"classifier:{expert_of}")(FRAMES, 15.0, [], {})
    monkeypatch.setattr(classifiers, "BATCH", 1)
    alone = cards.load(f"classifier:{expert_of}")(FRAMES, 15.0, [], {})
    assert [a[:2] for a in together] == [a[:2] for a in alone]
    assert together[0][2] == pytest.approx(alone[0][2], abs=1e-5)
    assert 0.2 <= together[0][2] <= 1.0
    assert len(cards.load(f"classifier:{expert_of}")(FRAMES[:1], 15.0, [], {})) == 1


def test_a_checkpoint_with_several_labels_at_once_tells_each_motion_by_its_own_probability(tmp_path):
    labels = {0: "pan_left", 1: "zoom_in", 2: "undefined", 3: "pov"}
    folder = video_checkpoint(tmp_path, labels, problem_type="multi_label_classification")
    answers = cards.load(f"classifier:{folder}")(FRAMES, 15.0, [], {})
    assert {field for field, _, _ in answers} == {"camera_motion", "shot_position"}
    assert all(0 <= sure <= 1 for _, _, sure in answers)


def test_a_checkpoint_for_something_else_is_refused_in_a_sentence(tmp_path):
    folder = image_checkpoint(tmp_path, {0: "cat", 1: "dog"})
    with pytest.raises(ValueError, match="cat, dog"):
        cards.load(f"classifier:{folder}")


@pytest.mark.parametrize(
    ("label", "meaning"),
    [
        ("closeUp", ("shot_type", "close_up")),
        ("extremeLongShot", ("shot_type", "long_shot")),
        ("ECS", ("shot_type", "extreme_close_up")),
        ("Medium Close-Up", ("shot_type", "close_up")),
        ("Pan Left", ("camera_motion", "the camera pans to the left")),
        ("low_angle", ("shot_angle", "low_angle")),
        ("over-the-shoulder", ("shot_position", "over_the_shoulder")),
    ],
)
def test_labels_are_read_however_they_are_spelt(label, meaning):
    assert classifiers.label_meanings({0: label}, "x") == {0: meaning}


@pytest.mark.parametrize(
    ("labels", "without"),
    [
        # pszemraj/beit-large-patch16-512-film-shot-classifier, trained on szymonrucinski/types-of-film-shots
        ("ambiguous closeUp detail extremeLongShot fullShot longShot mediumCloseUp mediumShot", {"ambiguous"}),
        # gullalc/videomae-base-finetuned-kinetics-movieshots-scale
        ("ECS CS MS FS LS", set()),
    ],
)
def test_every_label_of_the_published_classifiers_has_its_meaning(labels, without):
    named = dict(enumerate(labels.split()))
    found = classifiers.label_meanings(named, "x")
    assert {named[n] for n in set(named) - set(found)} == without
    assert {field for field, _ in found.values()} == {"shot_type"}
    assert {value for _, value in found.values()} == set(classifiers.SHOT_TYPES)


def test_every_meaning_is_a_word_of_the_captions_schema():
    from stages.caption.stage import CHOICES

    for field, value in classifiers.MEANINGS.values():
        assert field == "camera_motion" or value in CHOICES[field]


def test_two_labels_with_one_meaning_add_up_and_those_at_once_do_not():
    meanings = {0: ("shot_type", "long_shot"), 1: ("shot_type", "long_shot"), 2: ("shot_type", "close_up")}
    assert classifiers.answers(np.array([0.3, 0.3, 0.4]), meanings) == [("shot_type", "long_shot", pytest.approx(0.6))]
    assert classifiers.answers(np.array([0.3, 0.3, 0.4]), meanings, multi_label=True) == [
        ("shot_type", "close_up", 0.4)
    ]
    camera = {0: ("camera_motion", "the camera pans to the left"), 1: ("camera_motion", "the camera zooms in")}
    assert classifiers.answers(np.array([0.7, 0.9]), camera, multi_label=True) == [
        ("camera_motion", "the camera zooms in and pans to the left", 0.7)
    ]
    assert classifiers.answers(np.array([0.3, 0.2]), camera, multi_label=True)[0][2] == 0.3
