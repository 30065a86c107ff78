"""What a training is: its settings, and the presets tiny, 1.3b and 14b."""

from dataclasses import asdict, dataclass
from typing import Any

from pipelines.encode import Encoding

# Settings that may differ when a training goes on: they change what is seen of it or how fast it is, not what comes out.
RESUME_MUTABLE = {
    "steps",
    "num_workers",
    "log_every",
    "validate_every",
    "checkpoint_interval",
    "checkpoints_total_limit",
    "compile",
    "data_parallel_shard_degree",
    "data_parallel_replicate_degree",
    "context_parallel_degree",
    "validate_samples",
}


@dataclass(frozen=True)
class Settings:
    """How the network learns. The defaults are the paper's (arXiv 2504.02436) where it says anything."""

    steps: int = 10_000  # of the optimiser, altogether
    global_batch_size: int = 256  # samples in a step, over all processes
    seed: int = 0  # of every random choice
    trainable: str = "cross-attention"  # what learns: it, cross-2, image-branch, lora, full, or a regular expression
    lora_rank: int = 16  # of the adapters of the variant lora
    learning_rate: float = 1e-5  # of Adam
    micro_batch_size: int = 1  # samples in one pass of the network; a batch is the sum of its passes
    warmup_steps: int = 0  # steps in which the learning rate rises to it
    decay_steps: int = 0  # last steps, in which it falls to nothing
    weight_decay: float = 0.0  # of AdamW
    optimizer: str = "adamw"  # or adamw8bit, by torchao
    max_grad_norm: float = 1.0  # largest norm of a step's gradient
    ema_decay: float = 0.999  # share of the average that stays at a step; the average is validated and exported
    flow_shift: float = 5.0  # of noise levels towards noise; 1: all alike
    caption_dropout_prob: float = 0.3  # share of samples with the empty prompt
    reference_dropout_prob: float = 0.1  # share of samples without references
    single_reference_prob: float = 0.0  # share of samples with their first reference alone (needs encode's singles)
    reference_target: str = "reference"  # what is learnt where references stand: reference, video or ignore
    mixed_precision: str = "bfloat16"  # of the arithmetic; masters and averages are float32
    activation_checkpointing: bool = (
        False  # keep only the blocks' inputs for the backward pass (activation checkpointing)
    )
    compile: bool = False  # torch.compile each kind of block
    num_workers: int = 2  # processes that read samples
    data_parallel_shard_degree: int = 0  # processes that share one copy of the parameters (FSDP2); 0: all
    data_parallel_replicate_degree: int = 1  # such groups, each with a copy
    context_parallel_degree: int = 1  # processes that share one sample's tokens (Ulysses)
    log_every: int = 10  # steps
    validate_every: int = 500  # steps
    checkpoint_interval: int = 500  # steps
    checkpoints_total_limit: int = 3  # newest checkpoints that stay; the best one stays, too
    validate_samples: int = 64  # held-out samples that validation looks at, at most

    @staticmethod
    def name() -> str:
        return "train"


# Networks of the presets' sizes: Wan2.1-I2V's with another width and depth. What is trained comes from --model; these are for
# `plan`, and what `tiny` begins with.
NETWORKS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "1.3b": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30, "added_kv_proj_dim": 1536},
    "14b": {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40, "added_kv_proj_dim": 5120},
}

PRESETS: dict[str, tuple[Encoding, Settings]] = {
    "tiny": (
        Encoding(
            frames=13, height=48, width=80, dtype="float32", max_references=2, validation_fraction=0.25, augmentations=8,
            validation_augmentations=4,
        ),
        Settings(
            steps=600, global_batch_size=16, micro_batch_size=16, trainable="full", learning_rate=2e-3, warmup_steps=20,
            decay_steps=240, ema_decay=0.98, flow_shift=8.0, mixed_precision="float32", num_workers=0, validate_every=300,
            checkpoint_interval=300, validate_samples=20,
        ),
    ),
    "1.3b": (Encoding(), Settings(global_batch_size=64, trainable="full", mixed_precision="bfloat16")),
    "14b": (Encoding(), Settings(activation_checkpointing=True)),
}  # fmt: skip


def network_config(preset: str) -> dict[str, Any]:
    """The config of a preset's network."""
    if preset == "tiny":
        from model_zoo.a2.tiny import TRANSFORMER

        return TRANSFORMER
    return {"attention_head_dim": 128, "in_channels": 36, "out_channels": 16, "image_dim": 1280, **NETWORKS[preset]}


def check_same(before: dict[str, Any], settings: Settings) -> None:
    """Raises ValueError where a training was begun with settings that would make it another one."""
    now = asdict(settings)
    other = [
        f"{n} {before.get(n)!r}, now {v!r}" for n, v in now.items() if n not in RESUME_MUTABLE and before.get(n) != v
    ]
    if other:
        raise ValueError(
            f"this training was begun with other settings: {'; '.join(other)}. Give the same, or another --out to begin anew"
        )


def check(settings: Settings, ranks: int) -> None:
    """Raises ValueError for settings that make no sense."""
    data_ranks = max(1, ranks // settings.context_parallel_degree)
    if settings.global_batch_size % data_ranks:
        raise ValueError(
            f"a batch of {settings.global_batch_size} samples cannot be divided among {data_ranks} processes"
        )
    shares = {
        n: getattr(settings, n) for n in ("caption_dropout_prob", "reference_dropout_prob", "single_reference_prob")
    }
    wrong = [f"{name} {value}" for name, value in shares.items() if not 0 <= value <= 1]
    if (
        wrong
        or min(settings.steps, settings.global_batch_size, settings.micro_batch_size) < 1
        or not 0 <= settings.ema_decay < 1
    ):
        raise ValueError(
            "settings out of range: "
            + (", ".join(wrong) or "steps, global_batch_size and micro_batch_size are at least 1, ema_decay is below 1")
        )
