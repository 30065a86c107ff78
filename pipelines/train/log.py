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

from pipelines.process_group import Place
from pipelines.train.parallelize import whole

# dense bfloat16 peak by a part of the GPU's name, TFLOP/s; source: NVIDIA's data sheets
PEAK_TFLOPS = {
    "B200": 2250.0, "H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "RTX 4090": 165.0,
}  # fmt: skip


class Log:
    """Metrics of the steps since the last line. Only the first process writes; all must call `line`."""

    def __init__(self, folder: Path, place: Place, flops_per_sample: float = 0.0, tokens_per_sample: int = 0):
        chief = place.rank == 0
        self.peak = place.ranks * peak_tflops(place.device)
        self.flops, self.tokens = flops_per_sample, tokens_per_sample
        self.seen: list[tuple[float, float, int, list[str]]] = []  # loss, noise level, references, roles of each sample
        self.norms: dict[str, Any] = {}  # tensors; read only when a line is written
        self.margins: list[torch.Tensor] = []  # of DPO; read only when a line is written
        self.waited_s, self.since_s = 0.0, time.perf_counter()
        self.chief, self.board, self.wandb = chief, None, None
        if chief:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = (folder / "log.jsonl").open("a")
            if importlib.util.find_spec("tensorboard"):
                from torch.utils.tensorboard import SummaryWriter

                self.board = SummaryWriter(str(folder / "tensorboard"))
            if importlib.util.find_spec("wandb") and {"WANDB_API_KEY", "WANDB_MODE"} & set(os.environ):
                import wandb

                self.wandb = wandb.init(project="a2data", name=folder.name, dir=str(folder))

    def sample(self, loss: float, level: float, references: int, roles: list[str]) -> None:
        self.seen.append((loss, level, references, roles))

    def step(self, found: Any, roles: list[list[str]]) -> None:
        """Record a step's result (pipelines.train.optimizer_step.Step), with the roles of each sample's references."""
        for (loss, level, references), shown in zip(found.samples, roles, strict=True):
            self.sample(loss, level, references, shown)
        self.norms |= found.norms
        self.margins += found.margins

    def line(self, step: int, loss: float, learning_rate: float) -> None:
        """Write the metrics of the steps since the last line."""
        seen, norms = gathered(self.seen), {name: whole(norm) for name, norm in self.norms.items()}
        elapsed = time.perf_counter() - self.since_s
        margins = gathered(torch.cat(self.margins).tolist() if self.margins else [])
        if self.chief:
            figures = {
                "step": step,
                "loss": loss,
                "learning_rate": learning_rate,
                "samples_per_s": len(seen) / elapsed,
                "tokens_per_s": len(seen) * self.tokens / elapsed,
                "waited_for_data": self.waited_s / elapsed,
                **{f"norm/{name}": value for name, value in norms.items()},
                **by_kind(seen),
            }
            if margins:
                figures["margin"] = sum(margins) / len(margins)
                figures["accuracy"] = sum(margin > 0 for margin in margins) / len(margins)
            if self.flops:
                figures["tflops"] = len(seen) * self.flops / elapsed / 1e12
            if self.flops and self.peak:
                figures["mfu"] = figures["tflops"] / self.peak
            if torch.cuda.is_available():
                figures["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
            self.write(step, figures)
            print(
                f"step {step:6d}  loss {loss:.4f}  {figures['samples_per_s']:.2f} samples/s  "
                f"gradient {norms.get('all', 0.0):.3g}  waiting for data {figures['waited_for_data']:.0%}",
                flush=True,
            )
        self.seen, self.margins, self.waited_s, self.since_s = [], [], 0.0, time.perf_counter()

    def held_out(self, step: int, found: Any) -> None:
        """Write the losses of a validation."""
        if not self.chief:
            return
        levels = {f"val_loss/level_{n / 10 + 0.1:.1f}": value for n, value in enumerate(found.levels)}
        others = {f"val_loss_shuffled/level_{n / 10 + 0.1:.1f}": v for n, v in enumerate(found.shuffled_levels)}
        figures = {"step": step, "val_loss": found.loss, "val_loss_shuffled": found.shuffled, **levels, **others}
        figures |= {f"gap/{clip}": value for clip, value in found.clips.items()}
        self.write(step, figures)
        print(f"step {step:6d}  held-out loss {found.loss:.4f}, with shuffled references {found.gap:+.1%}", flush=True)
        self.since_s = time.perf_counter()  # excludes validation from the training time

    def held_out_pairs(self, step: int, found: Any) -> None:
        """Write the results on held-out pairs (pipelines.train.preference.HeldOutPairs)."""
        if not self.chief:
            return
        figures = {"step": step, "val_loss": found.loss, "val_accuracy": found.accuracy, "val_margin": found.margin}
        figures |= {"better_change": found.better_change, "worse_change": found.worse_change}
        self.write(step, figures | {f"margin/{key}": value for key, value in found.pairs.items()})
        print(
            f"step {step:6d}  held-out pairs: loss {found.loss:.4f}, accuracy {found.accuracy:.0%}, margin {found.margin:+.3f}; "
            f"error of better videos {found.better_change:+.2%}, of worse {found.worse_change:+.2%}",
            flush=True,
        )
        self.since_s = time.perf_counter()  # excludes validation from the training time

    def write(self, step: int, figures: dict[str, Any]) -> None:
        self.file.write(json.dumps(figures) + "\n")
        self.file.flush()
        if self.board:
            for name, value in figures.items():
                self.board.add_scalar(name, value, step)
        if self.wandb:
            self.wandb.log(figures, step=step)

    def close(self) -> None:
        if self.chief:
            self.file.close()
        if self.board:
            self.board.close()
        if self.wandb:
            self.wandb.finish()


def peak_tflops(device: torch.device) -> float:
    """Return a device's bfloat16 peak, TFLOP/s; 0 if unknown."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), 0.0)


def gathered(mine: list[Any]) -> list[Any]:
    """Return the concatenated lists of all processes."""
    if not dist.is_initialized():
        return mine
    lists: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(lists, mine)
    return [item for part in lists for item in part]


def by_kind(seen: list[tuple[float, float, int, list[str]]]) -> dict[str, float]:
    """Return the mean loss by third of the noise levels, by number of references and by role."""
    groups: dict[str, list[float]] = defaultdict(list)
    for loss, level, references, roles in seen:
        groups[f"loss_by_level/{('low', 'middle', 'high')[min(2, int(level * 3))]}"].append(loss)
        groups[f"loss_by_references/{references}"].append(loss)
        for role in sorted(set(roles)) if references else []:
            groups[f"loss_by_role/{role}"].append(loss)
    return {name: sum(losses) / len(losses) for name, losses in sorted(groups.items())}
