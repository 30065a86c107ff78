"""The four ways train the same network on the same samples; the table says what they took."""

import argparse
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from benchmarks import training_step  # noqa: E402

ASKED = argparse.Namespace(
    shape="tiny",
    layers=1,
    size=(9, 32, 48),
    references=1,
    batch=2,
    activation_checkpointing=False,
    compile=False,
    steps=1,
)


def test_every_way_takes_steps_and_only_the_papers_part_moves_in_the_partial_ones():
    config, encoding, settings = training_step.asked_for(ASKED)
    samples = [training_step.sample_of(number, config, encoding) for number in range(2)]
    for make in (training_step.ours, training_step.plain):
        network = training_step.network_of(config, torch.device("cpu"))
        before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
        step = make(network, replace(settings, learning_rate=0.01), torch.device("cpu"), encoding)
        losses = [step(samples, number) for number in range(2)]
        moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
        assert all(0 < loss < 100 for loss in losses)
        assert any(".attn2." in name for name in moved)
        assert all(".attn2." in n or "patch_embedding" in n or "image_embedder" in n for n in moved)


def test_a_way_is_timed_without_its_first_step_and_a_full_step_costs_more_operations():
    given = training_step.asked_for(ASKED)
    found = training_step.measured("ours, full", *given, steps=2)
    assert len(found["seconds"]) == 2
    assert found["gb"] > 0.1
    cost = training_step.operations(*given)
    assert cost["ours, partial"] == cost["plain, partial"] < cost["ours, full"] == cost["plain, full"]


def test_the_table_has_ratios_of_medians_and_shares_of_the_peak():
    took = {"ours, partial": 1.0, "plain, partial": 2.0, "ours, full": 4.0, "plain, full": 5.0}
    found = {
        way: [{"seconds": [s, s, 100.0], "gb": s, "peak": 100.0, "device": "cuda"}, {"seconds": [s], "gb": 2 * s, "peak": 100.0}]
        for way, s in took.items()
    }  # fmt: skip
    lines = training_step.table(found, dict.fromkeys(took, 20e12), batch=2).splitlines()
    assert lines[1].split()[2:] == ["1.000", "1.000", "…", "100.000", "40.000", "40.0%", "2.00"]
    assert lines[5] == "partial: ours takes 0.50 of the plain loop's time, 0.50 of its memory"
    assert lines[7] == "ours: partial saves 75% of the full step's time, 75% of its memory"
