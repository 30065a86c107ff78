"""Schedules of step-distilled networks, and LoRA weights under the names of their authors and of diffusers."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import model_zoo  # noqa: E402, F401  # makes the torchvision of PyPI importable

# isort: split
from diffusers import WanTransformer3DModel  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from model_zoo.a2 import few_step  # noqa: E402
from model_zoo.a2 import pipeline as a2  # noqa: E402
from pipelines.sample.job import FEW_STEPS  # noqa: E402

NETWORK = {
    "in_channels": 16, "out_channels": 16, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32,
    "text_dim": 16, "freq_dim": 32,
}  # fmt: skip


def network():
    torch.manual_seed(0)
    return WanTransformer3DModel(**NETWORK).eval()


def weights(out=24, down=24, rank=2):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(rank, down, generator=rng), torch.randn(out, rank, generator=rng)


def run(net):
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        return net(
            torch.randn(1, 16, 1, 4, 4, generator=rng), torch.tensor([500.0]), torch.ones(1, 5, 16), return_dict=False
        )[0]


@pytest.mark.parametrize(("name", "steps"), FEW_STEPS.items())
def test_each_step_predicts_the_clean_video_and_adds_fresh_noise_of_the_next_level(name, steps):
    schedule = a2.scheduler(name, generator=torch.Generator().manual_seed(7))
    schedule.set_timesteps(steps)
    levels = few_step.LEVELS[name]
    assert len(schedule.timesteps) == steps == len(levels)
    assert schedule.timesteps.tolist() == pytest.approx([1000 * level for level in levels], rel=1e-6)
    x, clean, noise = torch.randn(1, 16, 1, 2, 2), torch.full((1, 16, 1, 2, 2), 0.5), torch.Generator().manual_seed(7)
    for t, level, after in zip(schedule.timesteps, levels, (*levels[1:], 0), strict=True):
        x = schedule.step((x - clean) / level, t, x, return_dict=False)[0]
        fresh = torch.randn(x.shape, generator=noise)
        assert torch.allclose(x, (1 - after) * clean + after * fresh, atol=1e-4)
    assert torch.allclose(x, clean, atol=1e-4)


def test_lightx2v_has_the_levels_of_its_shift():
    assert few_step.LEVELS["lightx2v"] == pytest.approx((1, 0.9375, 5 / 6, 0.625))


@pytest.mark.parametrize(
    "named", ["diffusion_model.blocks.0.self_attn.q", "blocks.0.self_attn.q", "blocks.0.attn1.to_q"]
)
def test_lora_weights_under_either_name_are_added(tmp_path, named):
    down, up = weights()
    save_file({f"{named}.lora_A.weight": down, f"{named}.lora_B.weight": up}, tmp_path / "lora.safetensors")
    changed, expected = network(), network()
    assert few_step.load_lora(changed, tmp_path / "lora.safetensors", scale=0.5) == 1
    with torch.no_grad():
        expected.blocks[0].attn1.to_q.weight += 0.5 * up @ down
    assert torch.allclose(run(changed), run(expected), atol=1e-5)
    assert not torch.allclose(run(changed), run(network()), atol=1e-3)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"blocks.0.attn1.to_q.weight": torch.zeros(24, 24)}, "does not hold LoRA weights"),
        (
            dict(
                zip(("blocks.7.attn1.to_q.lora_A.weight", "blocks.7.attn1.to_q.lora_B.weight"), weights(), strict=True)
            ),
            r"another network: this one lacks 1 layers, such as blocks\.7\.attn1\.to_q",
        ),
        (
            dict(
                zip(("blocks.0.attn1.to_q.lora_A.weight", "blocks.0.attn1.to_q.lora_B.weight"), weights(8), strict=True)
            ),
            r"another network: blocks\.0\.attn1\.to_q is 24 x 24, its weights are 8 x 24",
        ),
        ({"blocks.0.attn1.to_q.lora_A.weight": weights()[0]}, "its weights are half of a pair"),
    ],
)
def test_lora_weights_of_another_network_are_refused(tmp_path, state, sentence):
    save_file(state, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=sentence):
        few_step.load_lora(network(), tmp_path / "lora.safetensors")
