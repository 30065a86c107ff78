"""Checkpointed and compiled blocks compute what plain ones do, with a backward pass and without one."""

from functools import partial
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from torch.nn.functional import scaled_dot_product_attention as attention  # noqa: E402

from pipelines.train.parallelize import checkpoint_and_compile  # noqa: E402
from pipelines.train.settings import Settings  # noqa: E402


class Block(torch.nn.Module):
    def forward(self, x):
        return attention(x, x, x)


def test_a_compiled_checkpointed_block_runs_with_and_without_a_backward_pass(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    network = SimpleNamespace(blocks=[Block()])
    checkpoint_and_compile(network, Settings(compile=True, activation_checkpointing=True))
    x = torch.randn(1, 2, 8, 16)  # of frozen blocks before the first trained parameter, and of validation
    assert torch.allclose(network.blocks[0](x), attention(x, x, x), atol=1e-6)
    gradients = []
    for run in (network.blocks[0], Block()):
        given = x.clone().requires_grad_()
        run(given).square().sum().backward()
        gradients.append(given.grad)
    assert torch.allclose(*gradients, atol=1e-5)
