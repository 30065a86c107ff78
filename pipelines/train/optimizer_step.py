"""The network that learns, and one step of its optimiser: what a training does between reading samples and writing things down.

On a GPU a step waits for it once, when its losses are asked for: all else is queued, so that chance draws the next sample's noise
while the GPU goes through the last one.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.optim.swa_utils import get_ema_multi_avg_fn

from model_zoo.a2 import padding
from model_zoo.a2 import trainable as a2_trainable
from pipelines.process_group import Place
from pipelines.train import diagnosis, examples, parallelize
from pipelines.train.settings import Settings


def prepare_model(network: Any, settings: Settings, place: Place) -> Any:
    """A WanTransformer3DModel on its device, shared with the other processes, with those parameters learning that are to."""
    a2_trainable.choose(network, settings.trainable, settings.lora_rank)
    if place.rank == 0:
        print(a2_trainable.in_words(a2_trainable.table(network)), flush=True)
    if settings.activation_checkpointing:
        network.enable_gradient_checkpointing()
    parallelize.apply_fsdp(network.train(), settings, place)  # block by block: no GPU ever holds all of it
    network = network.to(place.device)
    if place.device.type == "cpu" and settings.context_parallel_degree == 1:
        padding.shorten(network)
    if settings.compile:
        network.compile_repeated_blocks()
    return network


class Step(NamedTuple):
    """What came of a step of the optimiser."""

    loss: float  # mean over the samples of all processes
    # of this process: loss, noise level, frames of latents that show references
    samples: list[tuple[float, float, int]]
    # of the gradient before it was clipped: "all", and each group's where the log is due
    norms: dict[str, torch.Tensor]


class TrainStep:
    """A network that is ready, its optimiser, and the average of the parameters that learn.

    nothing: the condition without references, (20, t, h, w).
    """

    def __init__(self, network: Any, nothing: torch.Tensor, settings: Settings, place: Place):
        self.network, self.nothing, self.settings, self.place = network, nothing, settings, place
        learning = dict(a2_trainable.trainable(network))
        self.parameters = list(learning.values())
        self.optimizer = optimizer_of(self.parameters, settings)
        self.average = {name: parameter.detach().clone() for name, parameter in learning.items()}
        self.groups: dict[str, list[torch.nn.Parameter]] = {}  # by what they are, for the log
        for name, parameter in learning.items():
            self.groups.setdefault(a2_trainable.group_of(name), []).append(parameter)

    def rate(self, step: int) -> float:
        """The learning rate of the step after `step`."""
        of = self.settings
        rate = of.learning_rate * min(1.0, (step + 1) / max(1, of.warmup_steps))
        return rate * min(1.0, (of.steps - step) / max(1, of.decay_steps))

    def learn(self, samples: Sequence[Any], step: int) -> Step:
        """The step after `step` of the optimiser, from this process's samples.

        Raises FloatingPointError, naming what is damaged, for a loss or a gradient that is not a number; nothing is learnt then.
        """
        of = self.settings
        drawn, passes = [], []
        for start in range(0, len(samples), of.micro_batch_size):
            group = [
                examples.drawn(sample, self.nothing, of, self.place.device)
                for sample in samples[start : start + of.micro_batch_size]
            ]
            losses = examples.losses(self.network, group, of.mixed_precision)
            # FSDP takes the mean over processes; what is wanted is the mean over samples
            (losses.sum() * (self.place.ranks / of.global_batch_size)).backward()
            drawn += [(example.level, example.slots) for example in group]
            passes.append(losses.detach())
        every = torch.cat(passes)
        norms = self.clip_grad_norm(groups=(step + 1) % of.log_every == 0)
        values, mean, norm = self.measured(every, norms["all"])
        if not (math.isfinite(mean) and math.isfinite(norm)):
            odd = [sample.key for sample, value in zip(samples, values, strict=True) if not math.isfinite(value)]
            parameters = {name: p.detach() for name, p in self.network.named_parameters() if not p.is_meta}
            why = diagnosis.cause(samples, odd, self.nothing, parameters)
            what = (
                f"gradient of step {step + 1} is {norm}"
                if math.isfinite(mean)
                else f"loss of step {step + 1} is {mean}"
            )
            raise FloatingPointError(
                f"the {what}: {why}. Nothing was learnt from it; the checkpoints are those before it"
            )
        for some in self.optimizer.param_groups:
            some["lr"] = self.rate(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.update_ema(step)
        return Step(mean, [(value, *how) for value, how in zip(values, drawn, strict=True)], norms)

    def measured(self, losses: torch.Tensor, norm: torch.Tensor) -> tuple[list[float], float, float]:
        """This process's losses, the mean loss of the samples of all processes, and the norm of the gradient: one wait."""
        total = losses.double().sum()
        if self.place.ranks > 1:
            dist.all_reduce(total)
            total /= self.settings.context_parallel_degree
        whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        *values, mean, size = torch.cat([losses.double(), total[None], whole.double()[None]]).tolist()
        return values, mean / self.settings.global_batch_size, size

    def clip_grad_norm(self, groups: bool) -> dict[str, torch.Tensor]:
        """Clip the gradient. Its norm before, and where asked that of each group of parameters; who reads them waits for them."""
        learning = [parameter for group in self.groups.values() for parameter in group]
        norms = {}
        if groups:
            there = {name: [p.grad for p in group if p.grad is not None] for name, group in self.groups.items()}
            norms = {name: torch.nn.utils.get_total_norm(gradients) for name, gradients in there.items()}
        return norms | {"all": torch.nn.utils.clip_grad_norm_(learning, self.settings.max_grad_norm)}

    @torch.no_grad()
    def update_ema(self, step: int) -> None:
        """Move the average towards the parameters; at the beginning faster, so that it does not remember the start."""
        stays = min(self.settings.ema_decay, (step + 1) / (step + 10))
        get_ema_multi_avg_fn(stays)(
            [parallelize.local(average) for average in self.average.values()],
            [parallelize.local(parameter.detach()) for parameter in self.parameters],
            0,
        )

    @torch.no_grad()
    def swap_ema_weights(self) -> None:
        """Exchange parameters and average; done again, it is undone."""
        for module in self.network.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # without a backward pass, the outermost stays gathered
        learning = dict(self.network.named_parameters())
        for name, average in self.average.items():
            one, other = parallelize.local(learning[name].detach()), parallelize.local(average)
            kept = one.clone()
            one.copy_(other)
            other.copy_(kept)


def optimizer_of(parameters: list[Any], settings: Settings) -> Any:
    """AdamW, or its 8-bit form (Dettmers et al. 2021, arXiv 2110.02861) by torchao."""
    import torch

    how: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        # one pass over the parameters, not one for each operation
        return torch.optim.AdamW(parameters, fused=True, **how)
    if settings.optimizer != "adamw8bit":
        raise ValueError(f"no optimizer called {settings.optimizer!r}: adamw or adamw8bit")
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise ImportError("the optimizer adamw8bit needs torchao: pip install torchao") from error
    return AdamW8bit(parameters, **how)
