"""Several processes sample what one samples: looks, tokens and tiles shared among them, on small networks of the real classes."""

import socket
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as multiprocessing  # noqa: E402
from tiny_pipeline import pictures, pipeline, sample, tiny_parts  # noqa: E402

from model_zoo.a2 import acceleration, long, parallel  # noqa: E402

LONG = {"num_frames": 25, "window": 17, "history": 4, "num_inference_steps": 2, "reference_guidance": 2.0}


def enter(rank: int, ranks: int, port: int, looks: int, tokens: int, kinds: list[str], out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    groups = parallel.groups(looks, tokens)
    made = {kind: sampled(kind, groups) for kind in kinds}
    torch.save(made, out / f"{rank}.pt")
    dist.destroy_process_group()


def on_ranks(looks: int, tokens: int, kinds: list[str], out: Path) -> list[dict]:
    """What every process of looks x tokens of them has at the end, {kind: tensor} each."""
    ranks = looks * tokens
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(enter, (ranks, port, looks, tokens, kinds, out), nprocs=ranks, start_method="fork")
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(ranks)]


def sampled(kind: str, groups: parallel.ParallelGroups):
    """Latents, a long video's latents, or what the VAE makes of tiles."""
    pipe = pipeline(tiny_parts())
    if kind == "tiles":
        return tiles(pipe.vae, groups.world)
    pipe.groups = groups
    if groups.tokens:
        parallel.split_tokens(pipe.transformer, groups.tokens)
    if kind == "long":
        pipe.encode_prompt = lambda **_: tuple(words(2))
        return long.latents(pipe, pictures(2), ["a"], generator=torch.Generator().manual_seed(0), **LONG)
    guidance = {"plain": 1.0, "three looks": 3.0}[kind]
    return sample(pipe, pictures(2), frames=13, output_type="latent", reference_guidance=guidance)


def words(n: int):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 512, 64, generator=generator) for _ in range(n)]


def tiles(vae, group):
    """A video of 13 x 40 x 72 coded and decoded in tiles of 32 px at every 24."""
    vae.enable_tiling(32, 32, 24, 24)
    if group:
        parallel.split_tiles(vae, group)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        latents = vae.encode(torch.randn(1, 3, 13, 40, 72, generator=generator)).latent_dist.mode()
        return vae.decode(latents).sample


@pytest.fixture(scope="module")
def alone() -> dict:
    torch.set_num_threads(1)
    return {kind: sampled(kind, parallel.ParallelGroups()) for kind in ("plain", "three looks", "long", "tiles")}


def far(ranks: list[dict], alone: dict) -> float:
    """The largest difference of any rank from one process."""
    return max((each[kind] - alone[kind]).abs().max().item() for each in ranks for kind in each)


@pytest.mark.parametrize(("looks", "tokens"), [(2, 1), (1, 2)])
def test_two_processes_sample_what_one_samples(tmp_path, alone, looks, tokens):
    kinds = ["plain", "three looks", "long", "tiles"] if looks == 2 else ["plain", "long"]
    assert far(on_ranks(looks, tokens, kinds, tmp_path), alone) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("looks", "tokens"), [(2, 2), (1, 4), (3, 1)])
def test_more_processes_sample_what_one_samples(tmp_path, alone, looks, tokens):
    kinds = ["three looks", "tiles"] if looks == 3 else ["plain", "three looks", "tiles"]
    assert far(on_ranks(looks, tokens, kinds, tmp_path), alone) < 1e-5


def test_numbers_that_are_not_that_of_the_processes_are_refused():
    with pytest.raises(
        ValueError, match="2 x --context-parallel 3 is not the number of processes, 1: start it with torchrun"
    ):
        parallel.groups(2, 3)


def test_attention_that_no_processes_can_share_is_refused():
    from diffusers.models.attention_dispatch import attention_backend

    transformer = tiny_parts()["transformer"]
    with (
        attention_backend("_native_math"),
        pytest.raises(ValueError, match="_native_math does not support context parallelism"),
    ):
        parallel.split_tokens(transformer, None)
    acceleration.set_attention_backend(transformer, "_native_math")
    with pytest.raises(ValueError, match="_native_math does not support context parallelism"):
        parallel.split_tokens(transformer, None)


def test_one_networks_attention_is_not_that_of_the_others():
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    before = _AttentionBackendRegistry.get_active_backend()
    acceleration.set_attention_backend(tiny_parts()["transformer"], "_native_math")
    assert _AttentionBackendRegistry.get_active_backend() == before


@pytest.mark.parametrize(("size", "heads", "sentence"), [
    ((32, 48, 17), 4, "the 30 tokens of 17 frames of 32 x 48 cannot be split evenly"),
    ((64, 64, 17), 6, "the 6 heads of attention cannot be split evenly"),
])  # fmt: skip
def test_shares_that_are_not_even_are_a_sentence(size, heads, sentence):
    with pytest.raises(ValueError, match=sentence):
        parallel.check_tokens(*size, heads, 4)


def test_81_frames_of_480_x_832_are_32760_tokens_for_2_4_and_8():
    for tokens in (2, 4, 8):
        parallel.check_tokens(480, 832, 81, 40, tokens)
