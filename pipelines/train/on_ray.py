"""Training on a Ray cluster: Ray Train runs one worker per GPU.

Only settings pass through Ray, never tensors: shards, model and `--out` must have the same paths on every node.
"""

import os
from pathlib import Path
from typing import Any

import ray

from pipelines.run import on_ray
from pipelines.train.settings import Settings
from stages.encode.settings import Encoding


def train(
    address: str,
    workers: int,
    shards: str,
    out: Path,
    encoding: Encoding,
    settings: Settings,
    model: Path | None,
    reference: Path | None = None,
) -> None:
    """Run `a2data train` in `workers` Ray Train workers, which form the process group. The trainer itself handles resuming."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    on_ray.connect(address)
    gpu = ray.cluster_resources().get("GPU", 0) > 0
    TorchTrainer(
        train_worker,
        train_loop_config={"arguments": (shards, Path(out).absolute(), encoding, settings, model, reference)},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(name="ray-train", storage_path=str(Path(out).absolute())),
    ).fit()


def train_worker(config: dict[str, Any]) -> None:
    """Run one process of a training on a cluster."""
    from pipelines.train.trainer import train

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    train(*config["arguments"])
