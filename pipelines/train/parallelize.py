"""Sharding over processes, which python, torchrun or Ray Train launch with the same environment variables."""

from functools import partial
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.checkpoint import checkpoint

from pipelines.process_group import ProcessInfo
from pipelines.train.settings import Settings


def all_blocks(network: Any) -> list[Any]:
    """Return the blocks of a network, those of VACE's branch included."""
    return [*network.blocks, *getattr(network, "vace_blocks", ())]


def checkpoint_and_compile(network: Any, settings: Settings) -> None:
    """Checkpoint the activations of each block, then compile it, in place and before `apply_fsdp`, the order of torchtitan.

    The compiled code contains the recomputation, and FSDP's hooks are outside of it. Compiling after FSDP fails, because FSDP
    changes the classes by whose names diffusers finds the blocks.
    """
    for block in all_blocks(network):
        forward = block.forward
        if settings.activation_checkpointing:
            forward = partial(_checkpointed, forward, any(p.requires_grad for p in block.parameters()))
        if settings.compile:
            forward = torch.compile(forward)
        block.forward = forward


def _checkpointed(forward: Any, trainable: bool, *args: Any, **kwargs: Any) -> Any:
    """Checkpoint a call that gradients flow through. Others keep nothing, and torch 2.13 cannot compile one in them."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    if torch.is_grad_enabled() and (trainable or any(tensor.requires_grad for tensor in tensors)):
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return forward(*args, **kwargs)


def apply_fsdp(network: Any, settings: Settings, process: ProcessInfo) -> None:
    """Shard parameters over processes with FSDP2 (Zhao et al. 2023, arXiv 2304.11277), one block at a time, in place.

    The processes form groups of shard x context degree; every group has a full copy. With a context-parallel degree above 1, that
    many processes split each sample's tokens (Ulysses, Jacobs et al. 2023, arXiv 2309.14509, implemented by diffusers). Raises
    ValueError if the product of the degrees is not the number of processes.
    """
    shard = settings.data_parallel_shard_degree or process.world_size // (
        settings.data_parallel_replicate_degree * settings.context_parallel_degree
    )
    if shard * settings.data_parallel_replicate_degree * settings.context_parallel_degree != process.world_size:
        raise ValueError(
            f"data_parallel_shard_degree {settings.data_parallel_shard_degree} x data_parallel_replicate_degree "
            f"{settings.data_parallel_replicate_degree} x context_parallel_degree {settings.context_parallel_degree} is not the "
            f"number of processes, {process.world_size}"
        )
    if process.world_size == 1:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    names = ("replicate", "shard", "ring", "ulysses")
    mesh = init_device_mesh(
        process.device.type,
        (settings.data_parallel_replicate_degree, shard, 1, settings.context_parallel_degree),
        mesh_dim_names=names,
    )
    copy_mesh = mesh["shard", "ring", "ulysses"]._flatten("copy")
    if settings.context_parallel_degree > 1:
        from diffusers import ContextParallelConfig

        network.enable_parallelism(
            config=ContextParallelConfig(ulysses_degree=settings.context_parallel_degree, mesh=mesh["ring", "ulysses"])
        )
    fsdp_mesh = mesh["replicate", "copy"] if settings.data_parallel_replicate_degree > 1 else copy_mesh
    param_dtype = torch.bfloat16 if settings.mixed_precision == "bfloat16" else None
    policy = MixedPrecisionPolicy(param_dtype=param_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in all_blocks(network):
        fully_shard(block, mesh=fsdp_mesh, mp_policy=policy)
    fully_shard(network, mesh=fsdp_mesh, mp_policy=policy)


def data_rank(settings: Settings, process: ProcessInfo) -> tuple[int, int]:
    """Return a process's data-parallel rank and the number of those: processes that split a sample's tokens share a rank."""
    return process.rank // settings.context_parallel_degree, process.world_size // settings.context_parallel_degree


def to_local(tensor: Any) -> Any:
    """Return this process's part of a tensor that may be sharded."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def full_norm(norm: Any) -> float:
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
