"""Sharding over processes, which python, torchrun or Ray Train launch with the same environment variables."""

from functools import partial
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.checkpoint import checkpoint

from pipelines.process_group import Place
from pipelines.train.settings import Settings


def blocks_of(network: Any) -> list[Any]:
    """Return the blocks of a network, those of VACE's branch included."""
    return [*network.blocks, *getattr(network, "vace_blocks", ())]


def checkpoint_and_compile(network: Any, settings: Settings) -> None:
    """Checkpoint the activations of each block, then compile it, in place and before `apply_fsdp`, the order of torchtitan.

    The compiled code contains the recomputation, and FSDP's hooks are outside of it. Compiling after FSDP fails, because FSDP
    changes the classes by whose names diffusers finds the blocks.
    """
    for block in blocks_of(network):
        ways = [block.forward]
        if settings.activation_checkpointing:
            ways.append(partial(checkpoint, block.forward, use_reentrant=False))
        if settings.compile:
            ways = [torch.compile(way) for way in ways]
        trained = any(parameter.requires_grad for parameter in block.parameters())
        block.forward = partial(forward, *ways, trained) if settings.activation_checkpointing else ways[0]


def forward(plain: Any, saving: Any, trained: bool, *given: Any, **more: Any) -> Any:
    """Call a block, with checkpointing only if there will be a backward pass: torch.compile refuses to recompute otherwise."""
    tensors = [value for value in (*given, *more.values()) if torch.is_tensor(value)]
    backward = torch.is_grad_enabled() and (trained or any(tensor.requires_grad for tensor in tensors))
    return (saving if backward else plain)(*given, **more)


def apply_fsdp(network: Any, settings: Settings, place: Place) -> None:
    """Shard parameters over processes with FSDP2 (Zhao et al. 2023, arXiv 2304.11277), one block at a time, in place.

    The processes form groups of shard x context degree; every group has a full copy. With a context-parallel degree above 1, that
    many processes split each sample's tokens (Ulysses, Jacobs et al. 2023, arXiv 2309.14509, implemented by diffusers). Raises
    ValueError if the product of the degrees is not the number of processes.
    """
    shard = settings.data_parallel_shard_degree or place.ranks // (
        settings.data_parallel_replicate_degree * settings.context_parallel_degree
    )
    if shard * settings.data_parallel_replicate_degree * settings.context_parallel_degree != place.ranks:
        raise ValueError(
            f"data_parallel_shard_degree {settings.data_parallel_shard_degree} x data_parallel_replicate_degree "
            f"{settings.data_parallel_replicate_degree} x context_parallel_degree {settings.context_parallel_degree} is not the "
            f"number of processes, {place.ranks}"
        )
    if place.ranks == 1:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    names = ("replicate", "shard", "ring", "ulysses")
    mesh = init_device_mesh(
        place.device.type,
        (settings.data_parallel_replicate_degree, shard, 1, settings.context_parallel_degree),
        mesh_dim_names=names,
    )
    whole = mesh["shard", "ring", "ulysses"]._flatten("copy")
    if settings.context_parallel_degree > 1:
        from diffusers import ContextParallelConfig

        network.enable_parallelism(
            config=ContextParallelConfig(ulysses_degree=settings.context_parallel_degree, mesh=mesh["ring", "ulysses"])
        )
    over = mesh["replicate", "copy"] if settings.data_parallel_replicate_degree > 1 else whole
    half = torch.bfloat16 if settings.mixed_precision == "bfloat16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks_of(network):
        fully_shard(block, mesh=over, mp_policy=policy)
    fully_shard(network, mesh=over, mp_policy=policy)


def data_rank(settings: Settings, place: Place) -> tuple[int, int]:
    """Return a process's data-parallel rank and the number of those: processes that split a sample's tokens share a rank."""
    return place.rank // settings.context_parallel_degree, place.ranks // settings.context_parallel_degree


def local(tensor: Any) -> Any:
    """Return this process's part of a tensor that may be sharded."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(norm: Any) -> float:
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
