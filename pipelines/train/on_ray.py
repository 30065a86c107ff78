"""Encoding and training on a Ray cluster: each encoding actor processes one tar at a time; Ray Train runs one worker per GPU.

Only settings and messages pass through Ray, never tensors: shards, model and `--out` must have the same paths on every node.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from a2data.store.folder import Folder
from pipelines import encode
from pipelines.run import on_ray
from pipelines.train.settings import Settings
from stages.encode.settings import Encoding


class Encoder:
    """Actor with loaded encoders that encodes tars from one folder to another."""

    def __init__(self, shards_in: str, out: str, model: str, device: str, how: Encoding, held_out: set[str]):

        from model_zoo.a2 import encoders as a2_encoders

        self.folders, self.how, self.held_out = (Folder(shards_in), Folder(out)), how, held_out
        self.encoders = a2_encoders.load(Path(model), device)

    def do(self, name: str, key: str) -> tuple[str, dict[str, Any]]:
        return name, encode.encode_tar(*self.folders, name, key, self.encoders, self.how, self.held_out)


def encode_tars(
    todo: list[tuple[str, str]], shards_in: str, out: str, model: str, device: str, how: Encoding, held_out: set[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Encode tars like pipelines.encode.encode_tars, on as many actors as resources and work allow, in order of completion.

    Raises RuntimeError with the tar whose actor died, and ValueError for errors that an actor raised; finished tars are kept.
    """
    need, count = on_ray.actor_options(device, len(todo))
    given = shards_in, out, model, device, how, held_out
    idle: list[Any] = [ray.remote(Encoder).options(**need).remote(*given) for _ in range(count)]
    waiting, busy = list(todo), dict[Any, tuple[Any, str]]()
    while waiting or busy:
        while waiting and idle:
            actor, tar = idle.pop(), waiting.pop(0)
            busy[actor.do.remote(*tar)] = actor, tar[0]
        (done,), _ = ray.wait(list(busy), num_returns=1)
        actor, name = busy.pop(done)
        try:
            yield ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise RuntimeError(
                f"the worker that encoded {name} died ({error}); re-run the command to resume"
            ) from error
        idle.append(actor)


def train(
    address: str, workers: int, shards: str, out: Path, encoding: Encoding, settings: Settings, model: Path | None
) -> None:
    """Run `a2data train` in `workers` Ray Train workers, which form the process group. The trainer itself handles resuming."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    on_ray.connect(address)
    gpu = ray.cluster_resources().get("GPU", 0) > 0
    TorchTrainer(
        worker,
        train_loop_config={"given": (shards, Path(out).absolute(), encoding, settings, model)},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(name="ray-train", storage_path=str(Path(out).absolute())),
    ).fit()


def worker(config: dict[str, Any]) -> None:
    """Run one process of a training on a cluster."""
    from pipelines.train.trainer import train

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    train(*config["given"])
