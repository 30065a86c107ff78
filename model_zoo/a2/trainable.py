"""Selection of A2's trainable parameters by a regular expression over their names, and a table of them.

A2 (arXiv 2504.02436) trains cross-attention, the patch embedding and the embedder of image tokens, and freezes the rest of Wan:
6,302,252,800 of 16,394,878,784 parameters are trained at full size.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

PATCH_AND_IMAGE = r"^patch_embedding\.|^condition_embedder\.image_embedder\."
VARIANTS = {
    "cross-attention": rf"\.attn2\.|{PATCH_AND_IMAGE}",  # the paper's, "cross-1" of its ablation
    "cross-2": rf"^blocks\.\d*[02468]\.attn2\.|{PATCH_AND_IMAGE}",  # of every second layer
    "vace": r"^vace_",  # the branch of VACE, as its authors train it
    "image-branch": r"\.attn2\.(add_k_proj|add_v_proj|norm_added_k)\.",
    "lora": r"\.lora_",
    "full": r"",
}
LORA_TARGET_MODULES = r".*\.attn[12]\.(to_q|to_k|to_v|to_out\.0|add_k_proj|add_v_proj)"
GROUPS = {
    "vace branch": r"^vace_",
    "self-attention": r"\.attn1\.",
    "cross-attention, image": r"\.attn2\.(add_k_proj|add_v_proj|norm_added_k)\.",
    "cross-attention, text": r"\.attn2\.",
    "feed-forward": r"\.ffn\.",
    "patch embedding": r"^patch_embedding\.",
    "image embedder": r"image_embedder\.",
    "text embedder": r"text_embedder\.",
}
REST = "time, norms and output"


class Row(NamedTuple):
    """A group of parameters."""

    group: str
    trainable: int
    all: int


def group_of(name: str) -> str:
    """Return the name of a parameter's group."""
    return next((group for group, pattern in GROUPS.items() if re.search(pattern, name)), REST)


def select(network: torch.nn.Module, variant: str, rank: int = 16) -> list[str]:
    """Make the parameters of a variant or a regular expression trainable, freeze all others and return the trainable names.

    "lora" first adds adapters of `rank` (Hu et al. 2021, arXiv 2106.09685) to the attention layers. Raises ValueError for an
    invalid expression, and if it does not match any parameter.
    """
    if variant == "lora" and not any("lora_" in name for name, _ in network.named_parameters()):
        add_lora(network, rank)
    try:
        pattern = re.compile(VARIANTS.get(variant, variant))
    except re.error as error:
        raise ValueError(
            f"--trainable {variant!r} is neither one of {', '.join(VARIANTS)} nor a valid regular expression: {error}"
        ) from error
    chosen = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(bool(pattern.search(name)))
        if parameter.requires_grad:
            chosen.append(name)
    if not chosen:
        examples = ", ".join(name for name, _ in list(network.named_parameters())[:3])
        raise ValueError(
            f"--trainable {variant!r} does not match any parameter: use {', '.join(VARIANTS)}, or a regular expression for names "
            f"such as {examples} …"
        )
    return chosen


def add_lora(network: Any, rank: int) -> None:
    """Add peft LoRA adapters to every projection of the attention layers; initially they have no effect."""
    from peft import LoraConfig

    network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGET_MODULES))


def cast(network: torch.nn.Module, frozen_dtype: str) -> None:
    """Make trainable parameters float32 and, for another frozen dtype than float32, the others bfloat16.

    Quantised weights stay, and what diffusers keeps in float32 (norms, time embedding) does if it is trained.
    """
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
        elif frozen_dtype != "float32" and type(parameter.data) is torch.Tensor:
            parameter.data = parameter.data.to(torch.bfloat16)


def trainable(network: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Return an iterator over the names and parameters that are trainable."""
    return ((name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad)


def table(network: torch.nn.Module) -> list[Row]:
    """Return the number of parameters and trainable parameters per group, then the total. Also works on the meta device."""
    counts: dict[str, list[int]] = {group: [0, 0] for group in (*GROUPS, REST)}
    for name, parameter in network.named_parameters():
        row = counts[group_of(name)]
        row[0] += parameter.numel() * parameter.requires_grad
        row[1] += parameter.numel()
    rows = [Row(group, *row) for group, row in counts.items() if row[1]]
    return [*rows, Row("all", sum(r.trainable for r in rows), sum(r.all for r in rows))]


def to_text(rows: list[Row]) -> str:
    """Return the table as text."""
    return "\n".join(f"{r.group:24} {r.trainable:>16,} of {r.all:>16,}  {r.trainable / r.all:4.0%}" for r in rows)
