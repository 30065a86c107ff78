"""Training and sampling with appended references and with VACE, from shards to a video."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import tiny_shards  # noqa: E402

from a2data.dataset.batch_plan import rng  # noqa: E402
from model_zoo.a2 import pipeline, tiny  # noqa: E402
from model_zoo.a2 import references as a2_references  # noqa: E402
from model_zoo.a2.transformer import network_class  # noqa: E402
from pipelines.process_group import ProcessInfo  # noqa: E402
from pipelines.sample.checkpoint import Checkpoint  # noqa: E402
from pipelines.train import examples  # noqa: E402
from pipelines.train.optimizer_step import TrainStep, prepare_model  # noqa: E402
from pipelines.train.settings import PRESETS, Settings, check  # noqa: E402
from pipelines.train.trainer import train  # noqa: E402
from stages.encode.settings import Encoding  # noqa: E402
from stages.encode.stage import Encode  # noqa: E402

HOW = replace(
    PRESETS["tiny"][0],
    frames=5,
    height=32,
    width=48,
    validation_fraction=0.25,
    augmentations=1,
    validation_augmentations=1,
)
SETTINGS = Settings(
    steps=4, global_batch_size=4, micro_batch_size=4, trainable="full", learning_rate=1e-3, flow_shift=1.0,
    mixed_precision="float32", num_workers=0, log_every=1, validate_every=100, checkpoint_interval=100, ema_decay=0.8,
)  # fmt: skip


@pytest.mark.parametrize("kind", ["appended", "vace"])
def test_from_shards_to_a_video(tmp_path, kind):
    packed = tiny_shards.make(tmp_path / "packed", tars=1)
    train(str(packed), tmp_path, replace(HOW, conditioning=kind), SETTINGS)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    held_out = [line["val_loss"] for line in lines if "val_loss" in line]
    assert len(held_out) == 2
    assert all(np.isfinite(held_out))

    opened = Checkpoint.with_references(tmp_path / "model")
    assert (opened.conditioning, opened.reference_slots) == (kind, 2)
    assert opened.defaults["frames"] == 5
    pipe = pipeline.load(opened.root, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    picture = np.full((40, 40, 3), 30, np.uint8)
    prepared = a2_references.prepare([a2_references.Reference("object", picture)], 32, 48, kind)
    video = pipe(
        prepared, "a red square", num_frames=5, num_inference_steps=2, guidance_scale=2.0, reference_guidance=2.0
    ).frames
    assert video.shape == (1, 5, 32, 48, 3)
    assert np.isfinite(video).all()

    with pytest.raises(ValueError, match=rf"takes references as '{kind}', but the samples are encoded for 'a2'"):
        train(str(packed), tmp_path / "other", HOW, SETTINGS, tmp_path / "model")


NOTHING = torch.zeros(20, 3, 4, 6)


@pytest.mark.parametrize("kind", ["appended", "vace"])
def test_a_network_learns_to_use_its_references(kind):
    """Two videos of one colour, each with a reference of that colour and the same prompt: only the reference tells them apart."""
    torch.manual_seed(0)
    place = ProcessInfo(0, 1, torch.device("cpu"))
    settings = replace(
        SETTINGS,
        steps=60,
        global_batch_size=2,
        micro_batch_size=2,
        reference_dropout_prob=0.0,
        flow_shift=5.0,
        ema_decay=0.0,
    )
    network = network_class(kind)(**tiny.TRANSFORMERS[kind])
    learner = TrainStep(prepare_model(network, settings, place), NOTHING, settings, place)
    coloured = [
        tensors(1) | {"video": torch.full((16, 3, 4, 6), colour), "condition": torch.full((16, 1, 4, 6), colour)}
        for colour in (-1.0, 1.0)
    ]

    def loss(shown):
        cpu, at = place.device, rng(0, 0, "a", "noise")
        mixed = coloured[0] | {"condition": coloured[shown]["condition"]}
        made = examples.make_example(mixed, NOTHING, 0.9, at, "ignore", cpu, conditioning=kind)
        with torch.no_grad():
            return float(examples.loss(learner.network, made, "float32"))

    before = loss(0)
    for step in range(settings.steps):
        some = [SimpleNamespace(key=str(n), epoch=step, index=n, tensors=coloured[n]) for n in range(2)]
        learner.run(some, step)
    assert loss(0) < 0.7 * before
    assert loss(1) > 1.5 * loss(0)


def tensors(references):
    some = torch.Generator().manual_seed(0)
    shapes = {"video": (16, 3, 4, 6), "condition": (16, references, 4, 6), "text": (5, tiny.DIM)}
    made = {name: torch.randn(*shape, generator=some) for name, shape in shapes.items()}
    return made | {"text_empty": torch.zeros(1, tiny.DIM)}


def example(kind, references=2, target="reference", **more):
    cpu = torch.device("cpu")
    return examples.make_example(
        tensors(references), NOTHING, 0.5, rng(0, 0, "a", "noise"), target, cpu, conditioning=kind, **more
    )


def test_the_video_has_the_same_noise_with_any_number_of_references():
    appended, one, two = example("appended"), example("vace", 1), example("vace", 2)
    assert torch.equal(appended.noise, one.noise[:, :, 1:])
    assert torch.equal(appended.noise, two.noise[:, :, 2:])
    assert torch.equal(two.clean[:, :, 2:], appended.clean)
    assert torch.equal(two.clean[:, :, :2], tensors(2)["condition"][None])


def test_appended_references_are_not_predicted_and_those_of_vace_are_on_demand():
    assert example("appended").loss_mask.tolist() == [True] * 3
    assert example("vace").loss_mask.tolist() == [True] * 5
    assert example("vace", target="ignore").loss_mask.tolist() == [False] * 2 + [True] * 3


@pytest.mark.parametrize("kind", ["appended", "vace"])
def test_dropped_references_are_zeros_and_not_predicted(kind):
    made = example(kind, with_references=False)
    assert made.slots == 0
    assert not made.condition[:, :16, :2].any()
    assert made.loss_mask[-3:].all()
    assert not made.loss_mask[:-3].any()


def test_a_micro_batch_with_different_numbers_of_references_is_refused():
    with pytest.raises(ValueError, match=r"conditions of 1 and 2 latent frames.*--reference-slots"):
        examples.losses(None, [example("appended", 1), example("appended", 2)], "float32")


def test_the_reference_target_video_is_refused_for_vace():
    with pytest.raises(ValueError, match="reference_target video: with the conditioning vace"):
        check(replace(SETTINGS, reference_target="video"), 1, replace(HOW, conditioning="vace"))


def test_samples_encoded_for_a2_before_there_was_a_choice_stay_valid():
    def fields(**how):
        return Encode(**vars(Encoding(**how)), shards="", out="", model="", revision="").cache_fields()

    assert fields() == fields(reference_slots=2)
    assert "conditioning" not in fields()
    assert (
        fields(conditioning="vace")
        != fields(conditioning="appended")
        != fields(conditioning="appended", reference_slots=2)
    )
