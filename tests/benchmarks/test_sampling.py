"""The benchmark of the sampler's flags runs without a GPU and reports what it cannot measure there."""

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
from benchmarks import sampling  # noqa: E402
from pipelines.sample import acceleration  # noqa: E402


def test_stock_diffusers_and_flags_are_printed_side_by_side(monkeypatch, capsys):
    size = ["--height", "32", "--width", "48", "--frames", "9", "--steps", "3", "--repeats", "1", "--device", "cpu"]
    monkeypatch.setattr(
        sys, "argv", ["sampling", *size, "--only", "cache mag, threshold", "attention-backend sage", "group-offload"]
    )
    sampling.main()
    rows = {line[:38].strip(): line[38:].split() for line in capsys.readouterr().out.splitlines()}
    assert float(rows["a2data, exact"][1]) == 1
    assert float(rows["stock diffusers, Wan2.1-I2V"][0]) > 0
    assert float(rows["--cache mag, threshold 0.2"][1]) > 0
    assert rows["--attention-backend sage"][:2] == rows["--group-offload"][:2] == ["not", "here:"]


def test_every_cache_and_every_kind_of_weights_is_measured():
    names = {flag.name for flag in sampling.flags([1.0], 3)}
    assert {f"--cache {kind}" for kind in acceleration.CACHES} | {
        f"--quantization {kind}" for kind in acceleration.WEIGHTS
    } <= names


def test_drift_is_the_ratio_of_the_error_to_white_in_decibels():
    exact = np.zeros((2, 4, 4, 3))
    assert sampling.psnr(exact, exact) == float("inf")
    assert sampling.psnr(exact + 0.1, exact) == pytest.approx(20)
