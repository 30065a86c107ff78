"""Join the processes of a training or of a sampler, as plain python, torchrun or Ray Train started them."""

import os
from typing import NamedTuple

import torch
import torch.distributed as dist


class Place(NamedTuple):
    """This process among those of a training."""

    rank: int
    ranks: int
    device: torch.device


def join() -> Place:
    """Join the other processes, where there are any; the caller may have done it already. NCCL on GPUs, gloo elsewhere."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    gpu = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if gpu:
        torch.cuda.set_device(local)
    if ranks > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    return Place(dist.get_rank(), dist.get_world_size(), device) if dist.is_initialized() else Place(0, 1, device)
