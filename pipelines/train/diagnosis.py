"""Why a loss or a gradient is not a number: what is damaged is named before any sample is blamed that is only beside it."""

from collections.abc import Sequence
from typing import Any

import torch

from pipelines.train.log import gathered
from pipelines.train.parallelize import local

LARGE = 1e6  # latents and embeddings are in the units, embeddings of text in the hundreds at most


def cause(
    samples: Sequence[Any], odd: Sequence[str], nothing: torch.Tensor, parameters: dict[str, torch.Tensor]
) -> str:
    """The cause as half a sentence, the same on all processes, which must all call this.

    odd: the samples of this process whose loss is not a number. nothing: the condition without references.
    """
    tensors = [(f"{sample.key} ({name})", tensor) for sample in samples for name, tensor in sample.tensors.items()]
    holding = gathered([name for name, tensor in tensors if not finite(tensor)])
    if holding:
        return f"there is NaN or infinity in {listed(holding)}; encode its shard again"
    if not finite(nothing):
        return (
            "there is NaN or infinity in the condition without references, and in no sample: remove encoded/encoding.json and "
            "encoded/no_references.safetensors, the same command makes them again"
        )
    broken = sorted(set(gathered([name for name, parameter in parameters.items() if not finite(local(parameter))])))
    if broken:
        return (
            f"the network holds NaN or infinity in {listed(broken)} before this step, and no sample does: the folder or the "
            "checkpoint that it was read from is damaged"
        )
    large = gathered([f"{name}: {tensor.abs().max():.2g}" for name, tensor in tensors if is_large(tensor)])
    if large:
        return f"there are values far beyond all that an encoder gives in {listed(large)}; encode its shard again"
    return f"after {listed(gathered(list(odd))) or listed(gathered([s.key for s in samples]))}; is the learning rate too high?"


def finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.detach().isfinite().all())


def is_large(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0 and float(tensor.detach().abs().max()) > LARGE


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
