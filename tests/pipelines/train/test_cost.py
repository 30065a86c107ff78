"""What a training takes, against figures that were worked out by hand or published."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from dataclasses import replace  # noqa: E402

from pipelines.train import cost as train_cost  # noqa: E402
from pipelines.train.settings import PRESETS, network_config  # noqa: E402


@pytest.fixture(scope="module")
def cost():
    return train_cost.sample_cost(network_config("14b"), *PRESETS["14b"])


def test_a_sample_through_14b_costs_what_its_matrices_say(cost):
    """81 x 480 x 832 is 32,760 tokens: 2 FLOP for each weight of a block and token, and attention of all to all."""
    tokens, dim, ffn, layers = 32_760, 5120, 13_824, 40
    linear = 2 * tokens * (4 * dim * dim + 2 * dim * dim + 2 * dim * ffn) + 2 * (512 + 771) * 2 * dim * dim
    attention = 4 * tokens * tokens * dim + 4 * tokens * (512 + 771) * dim
    assert cost.forward_flops == pytest.approx(layers * (linear + attention), rel=0.003)
    assert cost.step_flops == pytest.approx(4.461e15, rel=0.001)  # all 40 blocks, counted once


def test_half_the_gpus_hold_twice_as_much_of_what_is_shared(cost):
    settings = PRESETS["14b"][1]
    four, eight = (train_cost.memory_gb(16_394_878_784, 6_302_252_800, 351_392_768, cost, settings, n) for n in (4, 8))
    shared = ("parameters", "gradients", "optimizer", "average (EMA)")
    assert all(four[name] == 2 * eight[name] for name in shared)
    assert eight["optimizer"] == pytest.approx(6.3, abs=0.01)
    assert eight["activations"] == four["activations"]


def test_recomputing_keeps_a_fraction_and_context_parallelism_divides_it(cost):
    settings = PRESETS["14b"][1]
    sizes = 16_394_878_784, 6_302_252_800, 351_392_768
    kept = {
        name: train_cost.memory_gb(*sizes, cost, changed, 8)["activations"]
        for name, changed in {
            "all": replace(settings, activation_checkpointing=False),
            "recomputed": settings,
            "shared": replace(settings, context_parallel_degree=2),
        }.items()
    }  # fmt: skip
    assert kept["all"] > 8 * kept["recomputed"]
    assert 13 < kept["recomputed"] < 20  # 40 blocks' inputs are 13.4 GB
    assert kept["shared"] == kept["recomputed"] / 2


def test_the_table_says_the_papers_number_and_gpus_that_do_not_divide_are_refused(cost, monkeypatch):
    monkeypatch.setattr(train_cost, "sample_cost", lambda *args: cost)
    text = train_cost.estimate("14b", *PRESETS["14b"], gpus=8, peak_flops=989e12, mfu=0.3)
    assert "6,302,252,800 of   16,394,878,784" in text
    assert "s per step" in text
    with pytest.raises(ValueError, match="GPUs must be divisible by replicate x context"):
        train_cost.estimate(
            "14b", PRESETS["14b"][0], replace(PRESETS["14b"][1], context_parallel_degree=3), 8, 989e12, 0.3
        )
