"""Training settings, and the presets tiny, 1.3b and 14b."""

from dataclasses import asdict, dataclass
from typing import Any

from stages.encode.settings import Encoding

# Settings that may change on resume: they affect logging or speed, not the trained weights.
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


FROZEN_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1, "fp8": 1}  # of a weight of a linear layer


@dataclass(frozen=True)
class Settings:
    """Training settings. The defaults are the paper's (arXiv 2504.02436) where it states a value."""

    steps: int = 10_000
    """total optimizer steps"""
    global_batch_size: int = 256
    """samples per optimizer step, over all processes"""
    seed: int = 0
    """seed of every random choice"""
    objective: str = "flow"
    """flow: flow matching; dpo: preferences, needs --pairs and --reference"""
    dpo_beta: float = 500.0
    """constant beta of DPO, for the mean squared error over a video's latents; for their sum, divide it by their number"""
    dpo_positive: float = 0.0
    """weight of DPO-Positive's penalty if the error of better videos rises above the reference model's; 0: plain DPO"""
    trainable: str = "cross-attention"
    """trained part: cross-attention, cross-2, image-branch, vace, lora, full, or a regex"""
    lora_rank: int = 16
    """rank of the LoRA adapters (trainable lora)"""
    learning_rate: float = 1e-5
    """peak learning rate of Adam"""
    micro_batch_size: int = 1
    """samples per forward pass; gradients are accumulated to the global batch size"""
    warmup_steps: int = 0
    """steps of linear learning-rate warm-up"""
    decay_steps: int = 0
    """final steps over which the learning rate decays to 0"""
    weight_decay: float = 0.0
    """weight decay of AdamW"""
    optimizer: str = "adamw"
    """optimizer: adamw, or adamw8bit (torchao)"""
    max_grad_norm: float = 1.0
    """gradient norm to clip to"""
    ema_decay: float = 0.999
    """decay of the weight average (EMA), which is validated and exported; from 0, below 1"""
    flow_shift: float = 5.0
    """shift of the noise levels towards noise; 1: uniform"""
    caption_dropout_prob: float = 0.3
    """fraction of samples with an empty prompt, 0 to 1"""
    reference_dropout_prob: float = 0.1
    """fraction of samples without references, 0 to 1"""
    single_reference_prob: float = 0.0
    """fraction of samples with only their first reference, 0 to 1 (needs --singles)"""
    reference_target: str = "reference"
    """target of the loss at the reference frames (a2, vace): reference, video (a2) or ignore"""
    mixed_precision: str = "bfloat16"
    """compute dtype; master weights and the EMA are float32"""
    frozen_dtype: str = "float32"
    """dtype of the weights that are not trained: float32, bfloat16, or with trainable lora int8 or fp8 (torchao)"""
    activation_checkpointing: bool = False
    """store only each block's input; recompute the rest in the backward pass"""
    compile: bool = False
    """torch.compile for each kind of block"""
    num_workers: int = 2
    """data-loading processes"""
    data_parallel_shard_degree: int = 0
    """processes that shard one copy of the parameters (FSDP2); 0: all"""
    data_parallel_replicate_degree: int = 1
    """number of shard groups, each with a full copy"""
    context_parallel_degree: int = 1
    """processes that split one sample's tokens (Ulysses)"""
    log_every: int = 10
    """steps between log lines"""
    validate_every: int = 500
    """steps between validations"""
    checkpoint_interval: int = 500
    """steps between checkpoints"""
    checkpoints_total_limit: int = 3
    """newest checkpoints to keep; the best one is always kept"""
    validate_samples: int = 64
    """maximum number of held-out samples per validation"""

    @staticmethod
    def name() -> str:
        return "train"


# Network configs of the presets: Wan2.1-I2V with another width and depth. `train` reads the network from --model; these serve
# the cost estimate, and the preset `tiny` starts from its own.
NETWORKS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "1.3b": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30, "added_kv_proj_dim": 1536},
    "14b": {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40, "added_kv_proj_dim": 5120},
}

PRESETS: dict[str, tuple[Encoding, Settings]] = {
    "tiny": (
        Encoding(
            frames=13, height=48, width=80, dtype="float32", max_references=2, reference_slots=2, validation_fraction=0.25,
            augmentations=8, validation_augmentations=4,
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


# What DPO changes in a preset. Without dropouts, so that both videos are always compared under their prompt and references.
DPO: dict[str, Any] = {
    "trainable": "lora", "lora_rank": 64, "learning_rate": 5e-6, "global_batch_size": 64, "caption_dropout_prob": 0.0,
    "reference_dropout_prob": 0.0,
}  # fmt: skip
DPO_TINY = DPO | {"lora_rank": 8, "learning_rate": 3e-4, "global_batch_size": 16, "steps": 150, "decay_steps": 50}


def network_config(preset: str, conditioning: str = "a2") -> dict[str, Any]:
    """Return the transformer config of a preset."""
    if preset == "tiny":
        from model_zoo.a2.tiny import TRANSFORMERS

        return TRANSFORMERS[conditioning]
    base = {"attention_head_dim": 128, "in_channels": 36, "out_channels": 16, "image_dim": 1280, **NETWORKS[preset]}
    if conditioning == "a2":
        return base
    base |= {"in_channels": 16, "image_dim": None, "added_kv_proj_dim": None}
    vace = {"vace_layers": list(range(0, base["num_layers"], 2 if preset == "1.3b" else 5))}
    return base | (vace if conditioning == "vace" else {})


def check_resume(saved: dict[str, Any], settings: Settings) -> None:
    """Raise ValueError if a setting that affects the result differs from the one the training was started with."""
    current = asdict(settings)
    # trainings that were started before there was a setting had its default
    saved = asdict(Settings()) | saved
    changed = [f"{n} {saved[n]!r}, now {v!r}" for n, v in current.items() if n not in RESUME_MUTABLE and saved[n] != v]
    if changed:
        raise ValueError(
            f"this training was started with other settings: {'; '.join(changed)}. Use the same settings to resume, or another "
            "--out to start a new training"
        )


def check(settings: Settings, world_size: int, encoding: Encoding | None = None) -> None:
    """Raise ValueError for settings that are out of range or do not fit the number of processes or the conditioning."""
    if encoding and encoding.conditioning == "vace" and settings.reference_target == "video":
        raise ValueError("reference_target video: with the conditioning vace, references precede the video; use ignore")
    if settings.frozen_dtype not in FROZEN_BYTES:
        raise ValueError(f"unknown frozen_dtype {settings.frozen_dtype!r}: choose {', '.join(FROZEN_BYTES)}")
    if settings.frozen_dtype in ("int8", "fp8") and (settings.trainable != "lora" or world_size > 1):
        raise ValueError(
            f"frozen_dtype {settings.frozen_dtype} is for trainable lora on one process, not {settings.trainable} on "
            f"{world_size}: use bfloat16"
        )
    if settings.objective not in ("flow", "dpo"):
        raise ValueError(f"unknown objective {settings.objective!r}: choose flow or dpo")
    if settings.objective == "dpo" and (
        settings.trainable != "lora" or settings.dpo_beta <= 0 or settings.dpo_positive < 0
    ):
        raise ValueError(
            f"the objective dpo needs --trainable lora, not {settings.trainable!r}, since the reference model is the network "
            f"without its adapters, dpo_beta above 0 and dpo_positive from 0, not {settings.dpo_beta} and {settings.dpo_positive}"
        )
    data_ranks = max(1, world_size // settings.context_parallel_degree)
    if settings.global_batch_size % data_ranks:
        raise ValueError(
            f"global_batch_size {settings.global_batch_size} is not divisible by {data_ranks} data-parallel processes"
        )
    probabilities = {
        n: getattr(settings, n) for n in ("caption_dropout_prob", "reference_dropout_prob", "single_reference_prob")
    }
    out_of_range = [f"{name} {value}" for name, value in probabilities.items() if not 0 <= value <= 1]
    if (
        out_of_range
        or min(settings.steps, settings.global_batch_size, settings.micro_batch_size) < 1
        or not 0 <= settings.ema_decay < 1
    ):
        raise ValueError(
            "settings out of range: "
            + (
                ", ".join(out_of_range)
                or "steps, global_batch_size and micro_batch_size must be at least 1, ema_decay from 0 and below 1"
            )
        )
