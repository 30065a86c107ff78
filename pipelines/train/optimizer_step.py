"""The trained network, its EMA and one optimizer step: everything between reading samples and logging.

A step synchronises with the GPU once, when the losses are read. Everything else is queued, so the CPU draws the next sample's
noise while the GPU processes the last one.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.optim.swa_utils import get_ema_multi_avg_fn

from model_zoo.a2 import conditioning as a2_conditioning
from model_zoo.a2 import padding
from model_zoo.a2 import trainable as a2_trainable
from pipelines.process_group import Place
from pipelines.train import diagnosis, examples, parallelize, preference
from pipelines.train.settings import Settings


def prepare_model(network: Any, settings: Settings, place: Place) -> Any:
    """Return a network moved to its device, wrapped in FSDP, with only the selected parameters trainable."""
    with torch.random.fork_rng(devices=[]):  # the initial adapters depend on the seed alone
        torch.manual_seed(settings.seed)
        a2_trainable.choose(network, settings.trainable, settings.lora_rank)
    a2_trainable.cast(network, settings.frozen_dtype)
    if place.rank == 0:
        print(a2_trainable.in_words(a2_trainable.table(network)), flush=True)
    parallelize.checkpoint_and_compile(network, settings)
    # block by block, so that no GPU ever holds the whole network
    parallelize.apply_fsdp(network.train(), settings, place)
    network = network.to(place.device)
    if place.device.type == "cpu" and settings.context_parallel_degree == 1:
        padding.shorten(network)
    return network


class Step(NamedTuple):
    """Result of an optimizer step."""

    loss: float  # mean over the samples of all processes
    # this process's samples: loss, noise level, latent frames that hold references
    samples: list[tuple[float, float, int]]
    # gradient norms before clipping: "all", and each parameter group's on logging steps
    norms: dict[str, torch.Tensor]
    margins: list[torch.Tensor] = []  # of DPO, for each micro-batch of this process


class TrainStep:
    """A prepared network, its optimizer, and the EMA of the trainable parameters.

    nothing: A2's condition without references, (20, t, h, w).
    """

    def __init__(self, network: Any, nothing: torch.Tensor, settings: Settings, place: Place):
        self.network, self.nothing, self.settings, self.place = network, nothing, settings, place
        self.conditioning = a2_conditioning.of(network)
        learning = dict(a2_trainable.trainable(network))
        self.parameters = list(learning.values())
        self.optimizer = optimizer_of(self.parameters, settings)
        self.average = {name: parameter.detach().clone() for name, parameter in learning.items()}
        self.groups: dict[str, list[torch.nn.Parameter]] = {}  # by kind, for the log
        for name, parameter in learning.items():
            self.groups.setdefault(a2_trainable.group_of(name), []).append(parameter)

    def rate(self, step: int) -> float:
        """Return the learning rate of the step after `step`."""
        of = self.settings
        rate = of.learning_rate * min(1.0, (step + 1) / max(1, of.warmup_steps))
        return rate * min(1.0, (of.steps - step) / max(1, of.decay_steps))

    def learn(self, samples: Sequence[Any], step: int) -> Step:
        """Run the optimizer step after `step` on this process's samples.

        Raises FloatingPointError with the likely cause if the loss or gradient is not finite; the parameters stay unchanged.
        """
        of = self.settings
        drawn, passes, margins = [], [], list[torch.Tensor]()
        for start in range(0, len(samples), of.micro_batch_size):
            losses, group = self.losses(samples[start : start + of.micro_batch_size], margins)
            # FSDP averages over processes; the loss is a mean over samples
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
                f"the {what}: {why}. The optimizer step was not applied; the existing checkpoints are not affected"
            )
        for some in self.optimizer.param_groups:
            some["lr"] = self.rate(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.update_ema(step)
        return Step(mean, [(value, *how) for value, how in zip(values, drawn, strict=True)], norms, margins)

    def losses(
        self, samples: Sequence[Any], margins: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[examples.Example]]:
        """Return the losses of a micro-batch and its examples; of pairs, those of the better videos. Adds to the margins."""
        of, place = self.settings, (self.nothing, self.settings, self.place.device, self.conditioning)
        if of.objective == "dpo":
            pairs = [preference.drawn(sample, *place) for sample in samples]
            compared = preference.losses(self.network, pairs, of)
            margins.append(compared.margins)
            return compared.losses, [better for better, _ in pairs]
        group = [examples.drawn(sample, *place) for sample in samples]
        return examples.losses(self.network, group, of.mixed_precision), group

    def measured(self, losses: torch.Tensor, norm: torch.Tensor) -> tuple[list[float], float, float]:
        """Return this process's losses, the mean loss over all processes, and the gradient norm, with one synchronisation."""
        total = losses.double().sum()
        if self.place.ranks > 1:
            dist.all_reduce(total)
            total /= self.settings.context_parallel_degree
        whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        *values, mean, size = torch.cat([losses.double(), total[None], whole.double()[None]]).tolist()
        return values, mean / self.settings.global_batch_size, size

    def clip_grad_norm(self, groups: bool) -> dict[str, torch.Tensor]:
        """Clip the gradient and return its norm before clipping, and with `groups` that of each parameter group, as tensors."""
        learning = [parameter for group in self.groups.values() for parameter in group]
        norms = {}
        if groups:
            there = {name: [p.grad for p in group if p.grad is not None] for name, group in self.groups.items()}
            norms = {name: torch.nn.utils.get_total_norm(gradients) for name, gradients in there.items()}
        return norms | {"all": torch.nn.utils.clip_grad_norm_(learning, self.settings.max_grad_norm)}

    @torch.no_grad()
    def update_ema(self, step: int) -> None:
        """Update the EMA. Its decay is lower in the first steps, so that the initial values are forgotten."""
        stays = min(self.settings.ema_decay, (step + 1) / (step + 10))
        get_ema_multi_avg_fn(stays)(
            [parallelize.local(average) for average in self.average.values()],
            [parallelize.local(parameter.detach()) for parameter in self.parameters],
            0,
        )

    @torch.no_grad()
    def swap_ema_weights(self) -> None:
        """Swap the parameters and their EMA. A second call swaps them back."""
        for module in self.network.modules():
            if isinstance(module, FSDPModule):
                # the outermost module stays gathered after a forward pass without a backward pass
                module.reshard()
        learning = dict(self.network.named_parameters())
        for name, average in self.average.items():
            one, other = parallelize.local(learning[name].detach()), parallelize.local(average)
            kept = one.clone()
            one.copy_(other)
            other.copy_(kept)


def optimizer_of(parameters: list[Any], settings: Settings) -> Any:
    """Return AdamW, or 8-bit AdamW (Dettmers et al. 2021, arXiv 2110.02861) from torchao."""
    import torch

    how: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        # fused: one pass over the parameters instead of one per operation
        return torch.optim.AdamW(parameters, fused=True, **how)
    if settings.optimizer != "adamw8bit":
        raise ValueError(f"unknown optimizer {settings.optimizer!r}: choose adamw or adamw8bit")
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise ImportError("the optimizer adamw8bit needs torchao: pip install torchao") from error
    return AdamW8bit(parameters, **how)
