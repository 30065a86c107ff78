import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


from model_zoo.a2 import objective, padding, tiny  # noqa: E402


@pytest.mark.parametrize("words", [1, 7, 511, 512])
def test_one_token_that_counts_as_many_gives_what_all_padding_gives(words):
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    network = WanTransformer3DModel(**tiny.TRANSFORMER)
    noised, condition = torch.randn(2, 16, 3, 4, 6), torch.rand(2, 20, 3, 4, 6)
    text, image = torch.randn(2, words, tiny.DIM), torch.randn(2, 17, tiny.DIM)
    found = []
    for short in (False, True):
        if short:
            padding.merge_padding(network)
        said = objective.predict(network, noised, 0.5, condition, text, image)
        network.zero_grad()
        said.square().mean().backward()
        gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        found.append((said.detach(), gradients))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert len(found[0][1]) == len(found[1][1])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert (one - other).norm() <= 1e-4 * one.norm() + 1e-7
