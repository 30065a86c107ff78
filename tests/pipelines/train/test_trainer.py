"""The trainer on one process: data, checkpoints, resumption, errors on bad input."""

import json
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


import tiny_shards  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from a2data.dataset import writer  # noqa: E402
from a2data.store.folder import Folder  # noqa: E402
from model_zoo.a2 import conditioning as a2_conditioning  # noqa: E402
from model_zoo.a2 import objective, pipeline  # noqa: E402
from model_zoo.a2 import references as a2_references  # noqa: E402
from pipelines.process_group import ProcessInfo  # noqa: E402
from pipelines.train import checkpoints as train_checkpoints  # noqa: E402
from pipelines.train import examples as train_examples  # noqa: E402
from pipelines.train import validation as train_validation  # noqa: E402
from pipelines.train.settings import PRESETS, Settings  # noqa: E402
from pipelines.train.trainer import Trainer, train  # noqa: E402

HOW = replace(
    PRESETS["tiny"][0],
    frames=13,
    height=32,
    width=48,
    validation_fraction=0.25,
    augmentations=1,
    validation_augmentations=1,
)
SETTINGS = Settings(
    steps=4, global_batch_size=2, trainable="full", learning_rate=1e-3, flow_shift=1.0, mixed_precision="float32",
    num_workers=0, log_every=1, validate_every=100, checkpoint_interval=2, checkpoints_total_limit=2, ema_decay=0.9,
)  # fmt: skip


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    return tiny_shards.make(tmp_path_factory.mktemp("packed"), tars=1)


@pytest.fixture(scope="module")
def ready(tmp_path_factory, packed) -> Path:
    """A folder in which two steps were done: start, encoded samples, a checkpoint."""
    out = tmp_path_factory.mktemp("ready")
    train(str(packed), out, HOW, replace(SETTINGS, steps=2))
    return out


@pytest.fixture
def begun(tmp_path, ready) -> Path:
    """The same as it is before the first step."""
    for part in ("start", "encoded"):
        shutil.copytree(ready / part, tmp_path / part)
    return tmp_path


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "transformer" / "diffusion_pytorch_model.safetensors")


def run_of(folder: Path, settings: Settings = SETTINGS) -> Trainer:
    return Trainer(folder, folder / "start", HOW, settings, ProcessInfo(0, 1, torch.device("cpu")))


def test_where_all_samples_train_none_is_held_out(begun):
    aside = Folder(begun / "encoded" / "held-out")
    writer.finish(aside, [], {})
    assert run_of(begun).held_out == []


def test_resume_is_bit_identical(tmp_path, begun, ready, packed):
    train(str(packed), begun, HOW, SETTINGS)
    again = tmp_path / "again"
    shutil.copytree(ready, again)
    train(str(packed), again, HOW, SETTINGS)
    assert losses(again) == losses(begun)
    assert len(losses(begun)) == 4
    one, other = weights(begun), weights(again)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [path.name for path in sorted((begun / "checkpoints").iterdir())] == ["step-000002", "step-000004"]


def test_what_is_exported_samples_a_video(ready):
    pipe = pipeline.load(ready / "model", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pictures = [np.full((40, 40, 3), value, np.uint8) for value in (30, 200)]
    references = a2_references.prepare(
        [a2_references.Reference(role, p) for role, p in zip(("object", "background"), pictures, strict=True)], 32, 48
    )
    video = pipe(references, "a red square", num_frames=13, num_inference_steps=2, output_type="np").frames
    assert video.shape == (1, 5, 32, 48, 3)
    assert np.isfinite(video).all()
    assert (ready / "model" / "scheduler" / "scheduler_config.json").exists()


def test_the_sampler_tells_the_network_what_the_trainer_told_it(ready):
    """Prompt, image tokens and condition of a pipeline call, seen at the transformer, equal those of the encoded sample."""
    from stages.encode.tensors import choose

    triplet = tiny_shards.triplet(0)
    run = run_of(ready)
    samples = {s.key: s for s in [*run.held_out, *(run.loader.batch(n)[k] for n in range(3) for k in range(2))]}
    tensors = samples[triplet.facts.clip_id].tensors
    pipe = pipeline.load(ready / "model", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    seen = []
    pipe.transformer.register_forward_pre_hook(lambda _, args, given: seen.append(given), with_kwargs=True)
    prepared = a2_references.prepare(choose(triplet, HOW), 32, 48)
    pipe(prepared, triplet.prompt, num_frames=13, num_inference_steps=1, guidance_scale=1.0, output_type="latent")
    text = torch.nn.functional.pad(tensors["text"], (0, 0, 0, 512 - len(tensors["text"])))
    assert torch.allclose(seen[0]["hidden_states"][0, 16:], tensors["condition"], atol=1e-5)
    assert torch.allclose(seen[0]["encoder_hidden_states"][0], text, atol=1e-5)
    assert torch.allclose(seen[0]["encoder_hidden_states_image"][0], tensors["image"], atol=1e-5)


def test_drops_happen_as_often_as_said_and_differ_from_epoch_to_epoch(ready):
    run = run_of(ready)
    settings = replace(SETTINGS, caption_dropout_prob=0.3, reference_dropout_prob=0.1)
    sample = run.loader.batch(0)[0]
    worded, referenced = [], []
    for epoch in range(600):
        example = train_examples.draw_example(
            replace(sample, epoch=epoch), run.train_step.null_condition, settings, torch.device("cpu")
        )
        worded.append(example.text.shape[1] > 1)
        referenced.append(example.slots > 0)
        assert bool(example.image.any()) == referenced[-1]
    assert 0.24 < 1 - np.mean(worded) < 0.36  # three standard deviations of 600 draws
    assert 0.06 < 1 - np.mean(referenced) < 0.14


def test_an_example_is_the_same_on_any_process_and_another_in_another_epoch(ready):
    run = run_of(ready)
    sample = run.loader.batch(0)[0]
    once, again, later = (
        train_examples.draw_example(s, run.train_step.null_condition, SETTINGS, torch.device("cpu"))
        for s in (sample, sample, replace(sample, epoch=9))
    )
    assert torch.equal(once.noise, again.noise)
    assert once.level == again.level
    assert once.level != later.level
    assert not torch.equal(once.noise, later.noise)


def test_a_network_that_ignores_references_has_no_gap_and_one_that_copies_them_has(ready):
    run = run_of(ready)

    def blind(hidden_states, **_):
        return (torch.zeros_like(hidden_states[:, :16]),)

    def copying(hidden_states, timestep, **_):  # the clean video is the last reference, standing still
        level = float(timestep[0]) / 1000
        return ((hidden_states[:, :16] - hidden_states[:, 20:, 1:2]) / level,)

    for network, check in ((blind, lambda gap: gap == 0), (copying, lambda gap: gap > 0.05)):
        module = torch.nn.Linear(1, 1)  # for its device
        module.forward, module.config = network, {"in_channels": 36, "image_dim": 8}
        found = train_validation.evaluate(module, run.held_out, run.train_step.null_condition, "float32")
        assert check(found.gap)
        assert len(found.levels) == len(objective.LEVELS)


def test_one_pass_over_several_samples_gives_the_loss_and_gradient_of_each(ready):
    """One with two references, one with its first alone (half as many image tokens), one with none, with and without words."""
    run = run_of(ready)
    tensors = run.loader.batch(0)[0].tensors
    alone = {**tensors, "image": tensors["image"][:17], "condition": tensors["condition"].clone()}
    alone["condition"][:4, 1] = 0
    examples = [
        train_examples.make_example(
            given,
            run.train_step.null_condition,
            level,
            np.random.default_rng(n),
            "reference",
            torch.device("cpu"),
            **how,
        )
        for n, (given, level, how) in enumerate(
            ((tensors, 0.2, {}), (alone, 0.7, {"with_text": False}), (tensors, 0.9, {"with_references": False}))
        )
    ]
    assert [e.slots for e in examples] == [2, 1, 0]

    def seen(losses):
        run.train_step.network.zero_grad()
        losses.sum().backward()
        return losses.detach(), [p.grad.clone() for p in run.train_step.network.parameters() if p.grad is not None]

    together, gradients = seen(train_examples.losses(run.train_step.network, examples, "float32"))
    one_by_one, theirs = seen(
        torch.stack([train_examples.loss(run.train_step.network, e, "float32") for e in examples])
    )
    assert torch.allclose(together, one_by_one, rtol=1e-5)
    assert len(set(together.tolist())) == 3
    for one, other in zip(gradients, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max() + 1e-7


def test_references_are_exchanged_with_other_clips_not_with_variants_of_the_own():
    clips = ["a", "a", "b", "b", "c"]
    others = train_validation.shuffled_references(clips)
    assert others == [[2, 3, 4], [2, 3, 4], [4, 0, 1], [4, 0, 1], [0, 1, 2]]
    with pytest.raises(ValueError, match="hold out at least two"):
        train_validation.shuffled_references(["a", "a"])


def test_the_learning_rate_rises_and_falls_as_said(ready):
    run = run_of(ready, replace(SETTINGS, steps=10, warmup_steps=4, decay_steps=5, learning_rate=1.0))
    rates = []
    for step in range(10):
        rates.append(run.train_step.learning_rate(step))
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_two_processes_see_the_same_held_out_losses(ready):
    run = run_of(ready)
    whole = train_validation.evaluate(run.train_step.network, run.held_out, run.train_step.null_condition, "float32")
    again = train_validation.evaluate(run.train_step.network, run.held_out, run.train_step.null_condition, "float32")
    assert whole == again  # noise never changes


def test_other_settings_are_refused_and_free_ones_are_not(tmp_path, ready, packed):
    shutil.copytree(ready, tmp_path / "run")
    with pytest.raises(ValueError, match=r"started with other settings: learning_rate 0\.001, now 0\.002"):
        train(str(packed), tmp_path / "run", HOW, replace(SETTINGS, learning_rate=0.002))
    train(str(packed), tmp_path / "run", HOW, replace(SETTINGS, steps=3, checkpoint_interval=7, log_every=2))
    assert train_checkpoints.read_state(tmp_path / "run" / "checkpoints" / "step-000003")["step"] == 3


def test_a_changed_data_set_is_refused(tmp_path, ready):
    shutil.copytree(ready, tmp_path / "run")
    other = tiny_shards.make(tmp_path / "other", count=10, tars=1)
    with pytest.raises(ValueError, match="belongs to other data"):
        train(str(other), tmp_path / "run", HOW, SETTINGS)


def test_nan_in_a_latent_stops_by_name_and_costs_no_checkpoint(begun, packed):

    run = run_of(begun)
    samples = run.loader.batch(0)
    samples[1].tensors["video"][0, -1, 0, 0] = float("nan")
    before = {n: p.detach().clone() for n, p in run.train_step.network.named_parameters()}
    with pytest.raises(FloatingPointError, match=rf"there is NaN or infinity in {samples[1].key} \(video\)"):
        run.train_step.run(samples, 0)
    assert all(torch.equal(before[n], p) for n, p in run.train_step.network.named_parameters())
    assert a2_conditioning.count("a2", samples[0].tensors["condition"]) == 2


def test_resume_from_the_checkpoint_before_a_damaged_one_is_bit_identical(tmp_path, ready, packed, capsys):
    run, settings = tmp_path / "run", replace(SETTINGS, steps=3, checkpoint_interval=1, checkpoints_total_limit=3)
    shutil.copytree(ready, run)
    train(str(packed), run, HOW, settings)
    expected = weights(run)
    data = bytearray((run / "checkpoints" / "step-000003" / "__0_0.distcp").read_bytes())
    data[len(data) // 2] ^= 1
    (run / "checkpoints" / "step-000003" / "__0_0.distcp").write_bytes(data)
    train(str(packed), run, HOW, settings)
    said = capsys.readouterr().out
    assert "step-000003 is damaged, and kept as step-000003.damaged" in said
    assert "resuming after step 2" in said
    again = weights(run)
    assert all(torch.equal(expected[name], again[name]) for name in expected)
    kept = ["step-000002", "step-000003", "step-000003.damaged"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == kept


def test_a_tar_that_changed_after_encoding_is_named_where_a_loss_is_not_a_number(begun):
    run = run_of(begun)
    samples = run.loader.batch(0)
    (tar,) = (begun / "encoded" / "train").glob("*.tar")
    data = bytearray(tar.read_bytes())
    latents = samples[1].tensors["video"]
    place = data.index(latents.numpy().tobytes(), int(run.loader.index.offset[samples[1].row]))
    place += 4 * latents[0, :-1].numel()  # of the last frame: references stand in the first ones
    data[place : place + 4] = np.float32(np.nan).tobytes()
    tar.write_bytes(data)
    damaged = run.loader.batch(0)
    with pytest.raises(FloatingPointError) as error:
        run.run_step(damaged)
    assert f"there is NaN or infinity in {samples[1].key} (video)" in str(error.value)
    assert f"{tar} changed after encoding" in str(error.value)
    assert samples[0].key == samples[1].key or samples[0].key not in str(error.value)


def test_a_full_disk_costs_no_checkpoint(tmp_path, ready):
    """Another process resumes with files limited to 200 kB, as on a full disk."""
    shutil.copytree(ready, tmp_path / "run")
    run = run_of(tmp_path / "run")
    run.checkpoints.load(*run.trained_state())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        run.step = 4
        run.save()
        with pytest.raises(
            OSError, match=r"checkpoint of step 4 could not be written .* last complete one is step-000002"
        ):
            run.checkpoints.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in run.checkpoints.folder.iterdir()] == ["step-000002"]


def test_the_newest_and_the_best_checkpoints_stay(tmp_path):
    kept = train_checkpoints.Checkpoints(tmp_path, keep=2)
    for step, loss in enumerate((3.0, 1.0, 2.0, 2.5, 2.4), 1):
        folder = tmp_path / f"step-{step:06d}"
        folder.mkdir()
        (folder / "state.json").write_text(json.dumps({"val_loss": loss}))
    (tmp_path / "step-000009.tmp").mkdir()
    kept.prune()
    assert [path.name for path in kept.all()] == ["step-000002", "step-000004", "step-000005"]
    train_checkpoints.Checkpoints(tmp_path, keep=2)
    assert not (tmp_path / "step-000009.tmp").exists()  # half-written: never taken up, removed


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"global_batch_size": 0}, "steps, global_batch_size and micro_batch_size must be at least 1"),
        ({"caption_dropout_prob": 1.5}, r"out of range: caption_dropout_prob 1\.5"),
        ({"trainable": "nowhere"}, "'nowhere' does not match any parameter"),
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd': choose adamw or adamw8bit"),
        ({"reference_target": "nothing"}, "unknown reference_target 'nothing'"),
        ({"single_reference_prob": 1.0}, "encode them with --singles"),
        ({"context_parallel_degree": 2}, "is not the number of processes, 1"),
    ],
)
def test_settings_that_make_no_sense_are_sentences(begun, packed, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        train(str(packed), begun, HOW, replace(SETTINGS, **changes))


def test_references_given_alone_can_be_encoded_and_drawn(tmp_path, packed, ready):
    shutil.copytree(ready / "start", tmp_path / "start")
    train(
        str(packed),
        tmp_path,
        replace(HOW, singles=True),
        replace(SETTINGS, steps=1, single_reference_prob=1.0, reference_dropout_prob=0.0),
    )
    (line,) = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines() if "loss" in json.loads(x)]
    assert "loss_by_references/1" in line
    assert "loss_by_references/2" not in line


def test_adapters_alone_learn_and_are_merged_on_export(begun, packed):
    settings = replace(SETTINGS, steps=2, trainable="lora", lora_rank=4, learning_rate=0.05)
    train(str(packed), begun, HOW, settings)
    before = load_file(begun / "start" / "transformer" / "diffusion_pytorch_model.safetensors")
    after = weights(begun)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert set(before) == set(after)
    assert changed
    assert all(".attn" in name and name.endswith("weight") for name in changed)
    assert (begun / "model" / "lora").is_dir()
    run = run_of(begun, settings)  # the merged network says what the adapted one says
    run.checkpoints.load(*run.trained_state())
    run.train_step.swap_ema_weights()
    example = train_examples.draw_example(
        run.loader.batch(0)[0], run.train_step.null_condition, SETTINGS, torch.device("cpu")
    )
    merged = pipeline.load(begun / "model", dtype=torch.float32).transformer
    with torch.no_grad():
        one, other = (
            train_examples.loss(n, example, "float32") for n in (run.train_step.network.eval(), merged.eval())
        )
    assert torch.allclose(one, other, rtol=1e-5)


def test_the_command_line_says_what_is_missing_and_imports_nothing_heavy(tmp_path, packed):
    heavy = "import sys, pipelines.cli; print([m for m in ('torch', 'ray', 'diffusers', 'ultralytics') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
    from pipelines.cli.main import main

    assert main(["train", str(packed)]) == 2
    assert main(["train", str(packed), "--preset", "14b", "--out", str(tmp_path)]) == 2
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
