"""Training log: a console line every few steps, all metrics in DIR/log.jsonl, TensorBoard and Weights & Biases.

`tflops` counts the network's matrix operations, forward and backward, as `train estimate` does; recomputation is not included.
`mfu` is their fraction of the GPUs' bfloat16 peak, if that is known.
"""

import importlib.util
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pipelines.process_group import ProcessInfo
from pipelines.train.parallelize import full_norm

# dense bfloat16 peak by a part of the GPU's name, TFLOP/s; source: NVIDIA's data sheets
PEAK_TFLOPS = {
    "B200": 2250.0, "H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "RTX 4090": 165.0,
}  # fmt: skip


class TrainingLog:
    """Metrics of the steps since the last line. Only the first process writes; all must call `write_line`."""

    def __init__(self, folder: Path, process: ProcessInfo, flops_per_sample: float = 0.0, tokens_per_sample: int = 0):
        is_main = process.rank == 0
        self.peak_tflops = process.world_size * peak_tflops(process.device)
        self.flops, self.tokens = flops_per_sample, tokens_per_sample
        self.samples: list[
            tuple[float, float, int, list[str]]
        ] = []  # loss, noise level, references, roles of each sample
        self.norms: dict[str, Any] = {}  # tensors; read only when a line is written
        self.margins: list[torch.Tensor] = []  # of DPO; read only when a line is written
        self.data_wait_s, self.since_s = 0.0, time.perf_counter()
        self.is_main, self.tensorboard, self.wandb = is_main, None, None
        if is_main:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = (folder / "log.jsonl").open("a")
            if importlib.util.find_spec("tensorboard"):
                from torch.utils.tensorboard import SummaryWriter

                self.tensorboard = SummaryWriter(str(folder / "tensorboard"))
            if importlib.util.find_spec("wandb") and {"WANDB_API_KEY", "WANDB_MODE"} & set(os.environ):
                import wandb

                self.wandb = wandb.init(project="a2data", name=folder.name, dir=str(folder))

    def add_sample(self, loss: float, level: float, references: int, roles: list[str]) -> None:
        self.samples.append((loss, level, references, roles))

    def add_step(self, result: Any, roles: list[list[str]]) -> None:
        """Record a step's result (pipelines.train.optimizer_step.Step), with the roles of each sample's references."""
        for (loss, level, references), sample_roles in zip(result.samples, roles, strict=True):
            self.add_sample(loss, level, references, sample_roles)
        self.norms |= result.norms
        self.margins += result.margins

    def write_line(self, step: int, loss: float, learning_rate: float) -> None:
        """Write the metrics of the steps since the last line."""
        samples, norms = all_gather(self.samples), {name: full_norm(norm) for name, norm in self.norms.items()}
        elapsed = time.perf_counter() - self.since_s
        margins = all_gather(torch.cat(self.margins).tolist() if self.margins else [])
        if self.is_main:
            metrics = {
                "step": step,
                "loss": loss,
                "learning_rate": learning_rate,
                "samples_per_s": len(samples) / elapsed,
                "tokens_per_s": len(samples) * self.tokens / elapsed,
                "waited_for_data": self.data_wait_s / elapsed,
                **{f"norm/{name}": value for name, value in norms.items()},
                **losses_by_group(samples),
            }
            if margins:
                metrics["margin"] = sum(margins) / len(margins)
                metrics["accuracy"] = sum(margin > 0 for margin in margins) / len(margins)
            if self.flops:
                metrics["tflops"] = len(samples) * self.flops / elapsed / 1e12
            if self.flops and self.peak_tflops:
                metrics["mfu"] = metrics["tflops"] / self.peak_tflops
            if torch.cuda.is_available():
                metrics["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
            self.write(step, metrics)
            print(
                f"step {step:6d}  loss {loss:.4f}  {metrics['samples_per_s']:.2f} samples/s  "
                f"gradient {norms.get('all', 0.0):.3g}  waiting for data {metrics['waited_for_data']:.0%}",
                flush=True,
            )
        self.samples, self.margins, self.data_wait_s, self.since_s = [], [], 0.0, time.perf_counter()

    def write_validation(self, step: int, result: Any) -> None:
        """Write the losses of a validation."""
        if not self.is_main:
            return
        levels = {f"val_loss/level_{n / 10 + 0.1:.1f}": value for n, value in enumerate(result.levels)}
        shuffled_levels = {
            f"val_loss_shuffled/level_{n / 10 + 0.1:.1f}": v for n, v in enumerate(result.shuffled_levels)
        }
        metrics = {
            "step": step,
            "val_loss": result.loss,
            "val_loss_shuffled": result.shuffled,
            **levels,
            **shuffled_levels,
        }
        metrics |= {f"gap/{clip}": value for clip, value in result.clips.items()}
        self.write(step, metrics)
        print(
            f"step {step:6d}  held-out loss {result.loss:.4f}, with shuffled references {result.gap:+.1%}", flush=True
        )
        self.since_s = time.perf_counter()  # excludes validation from the training time

    def write_pair_validation(self, step: int, result: Any) -> None:
        """Write the results on held-out pairs (pipelines.train.preference.HeldOutPairs)."""
        if not self.is_main:
            return
        metrics = {"step": step, "val_loss": result.loss, "val_accuracy": result.accuracy, "val_margin": result.margin}
        metrics |= {"better_change": result.better_change, "worse_change": result.worse_change}
        self.write(step, metrics | {f"margin/{key}": value for key, value in result.pairs.items()})
        print(
            f"step {step:6d}  held-out pairs: loss {result.loss:.4f}, accuracy {result.accuracy:.0%}, margin "
            f"{result.margin:+.3f}; error of better videos {result.better_change:+.2%}, of worse {result.worse_change:+.2%}",
            flush=True,
        )
        self.since_s = time.perf_counter()  # excludes validation from the training time

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        self.file.write(json.dumps(metrics) + "\n")
        self.file.flush()
        if self.tensorboard:
            for name, value in metrics.items():
                self.tensorboard.add_scalar(name, value, step)
        if self.wandb:
            self.wandb.log(metrics, step=step)

    def close(self) -> None:
        if self.is_main:
            self.file.close()
        if self.tensorboard:
            self.tensorboard.close()
        if self.wandb:
            self.wandb.finish()


def peak_tflops(device: torch.device) -> float:
    """Return a device's bfloat16 peak, TFLOP/s; 0 if unknown."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), 0.0)


def all_gather(values: list[Any]) -> list[Any]:
    """Return the concatenated lists of all processes."""
    if not dist.is_initialized():
        return values
    lists: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(lists, values)
    return [item for part in lists for item in part]


def losses_by_group(samples: list[tuple[float, float, int, list[str]]]) -> dict[str, float]:
    """Return the mean loss by third of the noise levels, by number of references and by role."""
    groups: dict[str, list[float]] = defaultdict(list)
    for loss, level, references, roles in samples:
        groups[f"loss_by_level/{('low', 'middle', 'high')[min(2, int(level * 3))]}"].append(loss)
        groups[f"loss_by_references/{references}"].append(loss)
        for role in sorted(set(roles)) if references else []:
            groups[f"loss_by_role/{role}"].append(loss)
    return {name: sum(losses) / len(losses) for name, losses in sorted(groups.items())}
