"""DPO: the loss, its reference model, a training on pairs, and what it refuses."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import tiny_shards  # noqa: E402
from diffusers import WanTransformer3DModel  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from a2data.dataset.batch_plan import Bucket  # noqa: E402
from a2data.dataset.decode import Sample  # noqa: E402
from model_zoo.a2 import objective, tiny  # noqa: E402
from model_zoo.a2 import trainable as a2_trainable  # noqa: E402
from pipelines.prefer.make import make  # noqa: E402
from pipelines.prefer.stage import Prefer  # noqa: E402
from pipelines.process_group import ProcessInfo  # noqa: E402
from pipelines.train import preference  # noqa: E402
from pipelines.train.optimizer_step import TrainStep, prepare_model  # noqa: E402
from pipelines.train.settings import Settings  # noqa: E402
from pipelines.train.start import tiny_training_data  # noqa: E402
from pipelines.train.trainer import train  # noqa: E402
from stages.encode.settings import Encoding  # noqa: E402

WEIGHTS = "diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")
HOW = Encoding(frames=13, height=32, width=48, dtype="float32")
SETTINGS = Settings(
    objective="dpo", trainable="lora", lora_rank=4, dpo_beta=30.0, steps=4, global_batch_size=2, micro_batch_size=2,
    learning_rate=1e-3, flow_shift=1.0, caption_dropout_prob=0.5, reference_dropout_prob=0.5, mixed_precision="float32",
    num_workers=0, log_every=1, validate_every=4, checkpoint_interval=2, ema_decay=0.9,
)  # fmt: skip


def sample(number=0, **more):
    draw = torch.Generator().manual_seed(number)
    condition = torch.randn(20, 4, 4, 6, generator=draw)
    condition[:4] = 0
    condition[:4, :1] = 1
    tensors = {"video": torch.randn(16, 4, 4, 6, generator=draw), "rejected": torch.randn(16, 4, 4, 6, generator=draw)}
    tensors |= {"condition": condition, "image": torch.randn(17, tiny.DIM, generator=draw)}
    tensors |= {"text": torch.randn(5, tiny.DIM, generator=draw), "text_empty": torch.zeros(1, tiny.DIM)}
    return Sample(f"clip{number}", 0, 0, number, number, Bucket(13, 32, 48), tensors=tensors | more)


NOTHING = torch.zeros(20, 4, 4, 6)


def network(seed=0):
    """A network whose adapters have an effect, as after some training."""
    torch.manual_seed(seed)
    made = prepare_model(WanTransformer3DModel(**tiny.TRANSFORMER), SETTINGS, ProcessInfo(0, 1, CPU))
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return made


def merged(adapted):
    """A plain network whose weights include the adapters: an independent policy."""
    from pipelines.train.export import merge_lora as merge

    plain = WanTransformer3DModel(**tiny.TRANSFORMER)
    plain.load_state_dict(merge(adapted, adapted.state_dict()))
    return plain.eval()


def base(adapted):
    plain = WanTransformer3DModel(**tiny.TRANSFORMER)
    state = adapted.state_dict()
    plain.load_state_dict({n.replace(".base_layer", ""): t for n, t in state.items() if ".lora_" not in n})
    return plain.eval()


def squared_error(plain, example):
    """Computed for one video at a time, by the definition of the objective."""
    x = (1 - example.level) * example.clean + example.level * example.noise
    said = objective.predict(plain, x, example.level, example.condition, example.text, example.image)
    return float((said - (example.noise - example.clean)).square().mean())


def test_loss_equals_an_independent_computation():
    adapted = network()
    pairs = [preference.draw_pair(sample(n), NOTHING, SETTINGS, CPU) for n in (0, 3)]
    if pairs[0][0].image.shape != pairs[1][0].image.shape:
        raise AssertionError("both samples have the same tokens")
    compared = preference.losses(adapted, pairs, SETTINGS)
    policy, reference = merged(adapted), base(adapted)
    with torch.no_grad():
        for n, (good, bad) in enumerate(pairs):
            better = squared_error(policy, good) - squared_error(reference, good)
            worse = squared_error(policy, bad) - squared_error(reference, bad)
            margin = -30.0 / 2 * (better - worse)
            assert float(compared.margins[n]) == pytest.approx(margin, rel=1e-3, abs=1e-3)
            assert float(compared.losses[n].detach()) == pytest.approx(
                math.log1p(math.exp(-margin)), rel=1e-3, abs=1e-3
            )
            assert abs(margin) > 0.01


def test_the_penalty_applies_where_the_better_video_became_less_likely():
    policy, reference = torch.tensor([[0.5, 0.3], [0.6, 0.6]]), torch.full((2, 2), 0.4)
    compared = preference.dpo(policy, reference, 10.0, 3.0)
    inside = [-5 * ((0.1 - 0.2) + 3 * 0.1), -5 * ((-0.1 - 0.2) + 0)]
    assert compared.losses.tolist() == pytest.approx([math.log1p(math.exp(-x)) for x in inside])
    assert compared.margins.tolist() == pytest.approx([0.5, 1.5])


def test_both_videos_have_the_same_noise_level_prompt_and_references():
    for n in range(8):
        good, bad = preference.draw_pair(sample(n), NOTHING, SETTINGS, CPU)
        assert good.level == bad.level
        for name in ("noise", "condition", "text", "image", "loss_mask"):
            assert torch.equal(getattr(good, name), getattr(bad, name))
        assert not torch.equal(good.clean, bad.clean)


def test_the_reference_is_the_network_without_a_second_copy():
    adapted = network()
    learner = TrainStep(adapted, NOTHING, replace(SETTINGS, learning_rate=0.1), ProcessInfo(0, 1, CPU))
    pairs = [preference.draw_pair(sample(0), NOTHING, SETTINGS, CPU)]
    with torch.no_grad(), preference.adapters_off(adapted):
        before = preference.errors(adapted, pairs, "float32")
    count = sum(p.numel() for p in adapted.parameters())
    step = learner.run([sample(0), sample(1)], 0)
    with torch.no_grad(), preference.adapters_off(adapted):
        assert torch.equal(preference.errors(adapted, pairs, "float32"), before)
    assert sum(p.numel() for p in adapted.parameters()) == count
    assert {name for name, p in adapted.named_parameters() if p.requires_grad} == {
        name for name, _ in adapted.named_parameters() if "lora_" in name
    }
    assert torch.cat(step.margins).shape == (2,)


def test_untrained_adapters_have_no_margin_and_training_prefers_the_better_video():
    torch.manual_seed(0)
    plain = WanTransformer3DModel(**tiny.TRANSFORMER)
    learner = TrainStep(
        prepare_model(plain, SETTINGS, ProcessInfo(0, 1, CPU)), NOTHING, SETTINGS, ProcessInfo(0, 1, CPU)
    )
    first = learner.run([sample(0), sample(1)], 0)
    assert first.loss == pytest.approx(math.log(2), abs=1e-5)
    losses = [learner.run([sample(0), sample(1)], 0).loss for _ in range(15)]
    assert losses[-1] < 0.9 * math.log(2)


def test_adapters_are_on_attention_projections():
    names = {name for name, p in network().named_parameters() if p.requires_grad}
    parts = {name.split(".attn")[1].split(".lora_")[0][2:] for name in names}
    assert (
        {"to_q", "to_k", "to_v", "to_out.0"}
        <= parts
        <= {"to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj"}
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> SimpleNamespace:
    """Pairs and a reference model."""
    home = tmp_path_factory.mktemp("dpo")
    packed = tiny_shards.make(home / "packed", count=4, tars=1)
    stage = Prefer(shards=str(packed), out=str(home / "pairs"), frames=13, kinds="reversed|frozen", grades="3")
    make(stage, 0.25, log=lambda text: None)
    tiny.save_initial_checkpoint(home / "reference", *tiny_training_data(str(packed), HOW))
    return SimpleNamespace(home=home, packed=packed, pairs=str(home / "pairs"), reference=home / "reference")


@pytest.fixture(scope="module")
def trained(world) -> Path:
    out = world.home / "out"
    train(world.pairs, out, HOW, SETTINGS, reference=world.reference)
    return out


def test_training_logs_margins_and_exports_the_merged_model(trained, world):
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    first, *_, last = [line for line in lines if "val_margin" in line]
    assert (first["step"], first["val_margin"], first["val_loss"]) == (0, 0, pytest.approx(math.log(2)))
    assert last["step"] == 4
    assert {"better_change", "worse_change", "val_accuracy"} <= last.keys()
    assert [line["step"] for line in lines if "accuracy" in line] == [1, 2, 3, 4]
    ours, theirs = (
        load_file(f / "transformer" / "diffusion_pytorch_model.safetensors")
        for f in (trained / "model", world.reference)
    )
    changed = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert changed
    assert all(".attn" in name for name in changed)


def test_resume_is_bit_identical(world, trained, tmp_path):
    import shutil

    shutil.copytree(trained / "encoded", tmp_path / "encoded")
    for steps in (2, 4):
        train(world.pairs, tmp_path, HOW, replace(SETTINGS, steps=steps), reference=world.reference)
    ours, theirs = (load_file(f / "model/lora/pytorch_lora_weights.safetensors") for f in (tmp_path, trained))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_later_stage_continues_the_adapters_of_an_earlier_one(world, trained):
    plain = WanTransformer3DModel.from_pretrained(world.reference / "transformer")
    preference.load_adapters(plain, trained / "model")
    a2_trainable.select(plain, "lora", 4)
    saved = load_file(trained / "model/lora/pytorch_lora_weights.safetensors")
    known = {name: p for name, p in plain.named_parameters() if "lora_" in name}
    assert len(known) == len(saved)
    assert all(p.requires_grad for p in known.values())
    assert any(bool(p.detach().any()) for name, p in known.items() if "lora_B" in name)


def test_bad_input_is_refused(world, trained, tmp_path):
    with pytest.raises(ValueError, match="needs a reference"):
        train(world.pairs, tmp_path, HOW, SETTINGS)
    with pytest.raises(ValueError, match="--trainable lora, not 'full'"):
        train(world.pairs, tmp_path, HOW, replace(SETTINGS, trainable="full"), reference=world.reference)
    with pytest.raises(ValueError, match="does not have pairs"):
        train(str(world.packed), tmp_path, HOW, SETTINGS, reference=world.reference)
    one = sample(9)
    with pytest.raises(ValueError, match="clip9 is not a pair"):
        preference.draw_pair(replace(one, tensors={"video": one.tensors["video"]}), NOTHING, SETTINGS, CPU)
    with pytest.raises(ValueError, match=r"clip9 have other shapes, \(16, 4, 4, 6\) and \(16, 3, 4, 6\)"):
        preference.draw_pair(sample(9, rejected=torch.zeros(16, 3, 4, 6)), NOTHING, SETTINGS, CPU)
    wider = WanTransformer3DModel(**tiny.TRANSFORMER | {"num_attention_heads": 8, "added_kv_proj_dim": 320})
    with pytest.raises(ValueError, match=r"lora do not fit the reference model"):
        preference.load_adapters(wider, trained / "model")
    with pytest.raises(ValueError, match=r"no adapters in lora/"):
        preference.load_adapters(wider, world.reference)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_and_export_adapters(world, trained, tmp_path):
    flags = ["--objective", "dpo", "--pairs", world.pairs, "--reference", str(world.reference), "--out", str(tmp_path)]
    for name, value in (asdict(HOW) | asdict(SETTINGS)).items():
        text = str(value)
        flag = "--" + name.replace("_", "-")
        flags += [flag, text] if not isinstance(value, bool) else [flag if value else f"--no-{flag[2:]}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "pipelines.cli", "train"]
    subprocess.run([*command, *flags, "--preset", "14b"], check=True, timeout=600)
    logs = [[json.loads(line) for line in (f / "log.jsonl").read_text().splitlines()] for f in (tmp_path, trained)]
    ours, theirs = ([line["loss"] for line in log if "loss" in line] for log in logs)
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert len(ours) == 4
    assert load_file(tmp_path / "model/lora/pytorch_lora_weights.safetensors")
