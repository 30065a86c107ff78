"""Process group of a training run or a sampler, started by plain python, torchrun or Ray Train."""

import os
from typing import NamedTuple

import torch
import torch.distributed as dist


class ProcessInfo(NamedTuple):
    """Rank of this process, number of processes, and its device."""

    rank: int
    world_size: int
    device: torch.device


def init_distributed() -> ProcessInfo:
    """Initialise the process group if there are several processes and it is not initialised yet. NCCL on GPUs, gloo on CPUs."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    gpu = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if gpu:
        torch.cuda.set_device(local)
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    return (
        ProcessInfo(dist.get_rank(), dist.get_world_size(), device)
        if dist.is_initialized()
        else ProcessInfo(0, 1, device)
    )
