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
from pipelines.process_group import ProcessInfo
from pipelines.train import diagnosis, examples, parallelize, preference
from pipelines.train.settings import Settings


def prepare_model(network: Any, settings: Settings, process: ProcessInfo) -> Any:
    """Return a network moved to its device, wrapped in FSDP, with only the selected parameters trainable."""
    with torch.random.fork_rng(devices=[]):  # the initial adapters depend on the seed alone
        torch.manual_seed(settings.seed)
        a2_trainable.select(network, settings.trainable, settings.lora_rank)
    a2_trainable.cast(network, settings.frozen_dtype)
    if process.rank == 0:
        print(a2_trainable.to_text(a2_trainable.table(network)), flush=True)
    parallelize.checkpoint_and_compile(network, settings)
    # block by block, so that no GPU ever holds the whole network
    parallelize.apply_fsdp(network.train(), settings, process)
    network = network.to(process.device)
    if process.device.type == "cpu" and settings.context_parallel_degree == 1:
        padding.merge_padding(network)
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

    null_condition: A2's condition without references, (20, t, h, w).
    """

    def __init__(self, network: Any, null_condition: torch.Tensor, settings: Settings, process: ProcessInfo):
        self.network, self.null_condition, self.settings, self.process = network, null_condition, settings, process
        self.conditioning = a2_conditioning.of(network)
        trainable = dict(a2_trainable.trainable(network))
        self.parameters = list(trainable.values())
        self.optimizer = make_optimizer(self.parameters, settings)
        self.ema = {name: parameter.detach().clone() for name, parameter in trainable.items()}
        self.parameter_groups: dict[str, list[torch.nn.Parameter]] = {}  # by kind, for the log
        for name, parameter in trainable.items():
            self.parameter_groups.setdefault(a2_trainable.group_of(name), []).append(parameter)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of the step after `step`."""
        settings = self.settings
        rate = settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
        return rate * min(1.0, (settings.steps - step) / max(1, settings.decay_steps))

    def run(self, samples: Sequence[Any], step: int) -> Step:
        """Run the optimizer step after `step` on this process's samples.

        Raises FloatingPointError with the likely cause if the loss or gradient is not finite; the parameters stay unchanged.
        """
        settings = self.settings
        levels_and_slots, losses_of_passes, margins = [], [], list[torch.Tensor]()
        for start in range(0, len(samples), settings.micro_batch_size):
            losses, group = self.losses(samples[start : start + settings.micro_batch_size], margins)
            # FSDP averages over processes; the loss is a mean over samples
            (losses.sum() * (self.process.world_size / settings.global_batch_size)).backward()
            levels_and_slots += [(example.level, example.slots) for example in group]
            losses_of_passes.append(losses.detach())
        all_losses = torch.cat(losses_of_passes)
        norms = self.clip_grad_norm(per_group=(step + 1) % settings.log_every == 0)
        values, mean, norm = self.reduce_losses(all_losses, norms["all"])
        if not (math.isfinite(mean) and math.isfinite(norm)):
            non_finite_keys = [
                sample.key for sample, value in zip(samples, values, strict=True) if not math.isfinite(value)
            ]
            parameters = {name: p.detach() for name, p in self.network.named_parameters() if not p.is_meta}
            cause = diagnosis.find_cause(samples, non_finite_keys, self.null_condition, parameters)
            symptom = (
                f"gradient of step {step + 1} is {norm}"
                if math.isfinite(mean)
                else f"loss of step {step + 1} is {mean}"
            )
            raise FloatingPointError(
                f"the {symptom}: {cause}. The optimizer step was not applied; the existing checkpoints are not affected"
            )
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = self.learning_rate(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.update_ema(step)
        return Step(
            mean,
            [(value, *level_and_slots) for value, level_and_slots in zip(values, levels_and_slots, strict=True)],
            norms,
            margins,
        )

    def losses(
        self, samples: Sequence[Any], margins: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[examples.Example]]:
        """Return the losses of a micro-batch and its examples; of pairs, those of the better videos. Adds to the margins."""
        settings, context = self.settings, (self.null_condition, self.settings, self.process.device, self.conditioning)
        if settings.objective == "dpo":
            pairs = [preference.draw_pair(sample, *context) for sample in samples]
            compared = preference.losses(self.network, pairs, settings)
            margins.append(compared.margins)
            return compared.losses, [better for better, _ in pairs]
        batch = [examples.draw_example(sample, *context) for sample in samples]
        return examples.losses(self.network, batch, settings.mixed_precision), batch

    def reduce_losses(self, losses: torch.Tensor, norm: torch.Tensor) -> tuple[list[float], float, float]:
        """Return this process's losses, the mean loss over all processes, and the gradient norm, with one synchronisation."""
        total = losses.double().sum()
        if self.process.world_size > 1:
            dist.all_reduce(total)
            total /= self.settings.context_parallel_degree
        full_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        *values, mean, norm_value = torch.cat([losses.double(), total[None], full_norm.double()[None]]).tolist()
        return values, mean / self.settings.global_batch_size, norm_value

    def clip_grad_norm(self, per_group: bool) -> dict[str, torch.Tensor]:
        """Clip the gradient and return its norm before clipping, with `per_group` also that of each parameter group."""
        trainable = [parameter for group in self.parameter_groups.values() for parameter in group]
        norms = {}
        if per_group:
            gradients_of = {
                name: [p.grad for p in group if p.grad is not None] for name, group in self.parameter_groups.items()
            }
            norms = {name: torch.nn.utils.get_total_norm(gradients) for name, gradients in gradients_of.items()}
        return norms | {"all": torch.nn.utils.clip_grad_norm_(trainable, self.settings.max_grad_norm)}

    @torch.no_grad()
    def update_ema(self, step: int) -> None:
        """Update the EMA. Its decay is lower in the first steps, so that the initial values are forgotten."""
        decay = min(self.settings.ema_decay, (step + 1) / (step + 10))
        get_ema_multi_avg_fn(decay)(
            [parallelize.to_local(average) for average in self.ema.values()],
            [parallelize.to_local(parameter.detach()) for parameter in self.parameters],
            0,
        )

    @torch.no_grad()
    def swap_ema_weights(self) -> None:
        """Swap the parameters and their EMA. A second call swaps them back."""
        for module in self.network.modules():
            if isinstance(module, FSDPModule):
                # the outermost module stays gathered after a forward pass without a backward pass
                module.reshard()
        parameters = dict(self.network.named_parameters())
        for name, average in self.ema.items():
            weights, averaged = parallelize.to_local(parameters[name].detach()), parallelize.to_local(average)
            copy = weights.clone()
            weights.copy_(averaged)
            averaged.copy_(copy)


def make_optimizer(parameters: list[Any], settings: Settings) -> Any:
    """Return AdamW, or 8-bit AdamW (Dettmers et al. 2021, arXiv 2110.02861) from torchao."""
    import torch

    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        # fused: one pass over the parameters instead of one per operation
        return torch.optim.AdamW(parameters, fused=True, **options)
    if settings.optimizer != "adamw8bit":
        raise ValueError(f"unknown optimizer {settings.optimizer!r}: choose adamw or adamw8bit")
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise ImportError("the optimizer adamw8bit needs torchao: pip install torchao") from error
    return AdamW8bit(parameters, **options)
