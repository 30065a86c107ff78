"""`a2data train estimate`: estimate the memory and time of a training without a GPU.

The network is built on the meta device, where tensors have shapes but no content. PyTorch counts the floating-point operations
of a forward and backward pass; the bytes stored for the backward pass are counted, too. Both are linear in the number of blocks,
so they are extrapolated from networks with one and two blocks.
"""

from typing import Any, NamedTuple

from pipelines.train.settings import FROZEN_BYTES, Settings, network_config
from stages.encode.settings import Encoding, tokens

TOKENS_PER_REFERENCE = 257  # CLIP ViT-H/14 tokens per reference
GB = 1e9


class Cost(NamedTuple):
    """Cost of one sample in the network."""

    forward_flops: float  # floating-point operations of the forward pass
    step_flops: float  # floating-point operations of forward and backward pass, without recomputation
    saved_bytes: float  # bytes stored for the backward pass
    block_bytes: float  # bytes stored by one block
    checkpointed_bytes: (
        float  # bytes stored with activation checkpointing: block inputs and everything outside the blocks
    )


def estimate(preset: str, encoding: Encoding, settings: Settings, gpus: int, peak_flops: float, mfu: float) -> str:
    """Return a text table of parameters, memory per GPU and time per step.

    peak_flops: per GPU, FLOP/s. mfu: fraction of the peak that is reached. Raises ValueError if `gpus` or the batch size
    is not divisible by the degrees of parallelism.
    """
    from model_zoo.a2 import conditioning as a2_conditioning
    from model_zoo.a2 import trainable as a2_trainable

    a2_conditioning.check_size(
        encoding.conditioning, encoding.height, encoding.width, encoding.frames, encoding.max_references
    )
    replicate, context = settings.data_parallel_replicate_degree, settings.context_parallel_degree
    if gpus % (replicate * context) or settings.global_batch_size % (gpus // context):
        raise ValueError(
            f"{gpus} GPUs, data_parallel_replicate_degree {replicate}, context_parallel_degree {context}, global_batch_size "
            f"{settings.global_batch_size}: GPUs must be divisible by replicate x context, the batch by GPUs / context"
        )
    config = network_config(preset, encoding.conditioning)
    network = meta_network(config)
    a2_trainable.select(network, settings.trainable, settings.lora_rank)
    rows = a2_trainable.table(network)
    block_parameters = sum(p.numel() for p in network.blocks[0].parameters())
    cost = sample_cost(config, encoding, settings)
    memory = memory_gb(weight_bytes(network, settings), rows[-1].trainable, block_parameters, cost, settings, gpus)
    executed = cost.step_flops + cost.forward_flops * settings.activation_checkpointing
    per_gpu = settings.global_batch_size * executed / gpus
    lines = [
        f"preset {preset}, conditioning {encoding.conditioning}, "
        f"trainable {settings.trainable}: {encoding.frames} x {encoding.height} x {encoding.width}, "
        f"{encoding.max_references} references, batch {settings.global_batch_size} on {gpus} GPUs "
        f"(shard {gpus // replicate // context}, replicate {replicate}, context {context})",
        "",
        a2_trainable.to_text(rows),
        "",
        f"{'forward pass of a sample':40} {cost.forward_flops / 1e15:10.3f} PFLOP",
        f"{'forward and backward':40} {cost.step_flops / 1e15:10.3f} PFLOP",
        *(
            [f"{'with activation checkpointing':40} {executed / 1e15:10.3f} PFLOP"]
            if settings.activation_checkpointing
            else []
        ),
        f"{'step, per GPU':40} {per_gpu / 1e15:10.1f} PFLOP",
        f"{f'at {mfu:.0%} of {peak_flops / 1e12:.0f} TFLOP/s':40} {per_gpu / (peak_flops * mfu):10.1f} s per step",
        f"{f'{settings.steps} steps':40} {settings.steps * per_gpu / (peak_flops * mfu) / 3600:10.1f} h",
        "",
        "memory per GPU, GB",
        *(f"  {name:38} {gb:10.1f}" for name, gb in memory.items()),
        f"  {'total':38} {sum(memory.values()):10.1f}",
        "",
        "Operations and bytes are counted on the meta device; the fraction of the peak is an assumption (--mfu).",
    ]
    return "\n".join(lines)


def meta_network(config: dict[str, Any], layers: int | None = None) -> Any:
    """Return the network on the meta device, with `layers` blocks if given."""
    import torch

    from model_zoo.a2.checkpoint import conditioning_of
    from model_zoo.a2.transformer import network_class

    kind = conditioning_of(config)
    if layers:
        config = config | {"num_layers": layers} | ({"vace_layers": list(range(layers))} if kind == "vace" else {})
    with torch.device("meta"):
        return network_class(kind)(**config)


def sample_cost(config: dict[str, Any], encoding: Encoding, settings: Settings) -> Cost:
    """Return the cost of a sample, extrapolated from networks with one and two blocks."""
    one, two = (measure(config, layers, encoding, settings) for layers in (1, 2))
    forward, step, saved = (a + (b - a) * (config["num_layers"] - 1) for a, b in zip(one, two, strict=True))
    block = two[2] - one[2]
    hidden = 2 * tokens(encoding) * config["num_attention_heads"] * config["attention_head_dim"]  # bfloat16
    return Cost(forward, step, saved, block, one[2] - block + hidden * config["num_layers"])


def measure(config: dict[str, Any], layers: int, encoding: Encoding, settings: Settings) -> tuple[float, float, float]:
    """Return forward operations, step operations and stored bytes of a network with `layers` blocks, in bfloat16.

    The meta device only has plain attention, which stores its tokens x tokens matrices. GPU kernels recompute them, so they are
    not counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from model_zoo.a2 import conditioning as a2_conditioning
    from model_zoo.a2 import trainable as a2_trainable

    network = meta_network(config, layers)
    a2_trainable.select(network, settings.trainable, settings.lora_rank)
    network = network.to(torch.bfloat16).train()
    parameter_storages = {p.untyped_storage()._cdata for p in network.parameters()}
    saved: dict[int, tuple[int, Any]] = {}

    def save(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        matrix = (
            tensor.ndim >= 3 and tensor.shape[-2] == num_tokens and tensor.shape[-1] in (num_tokens, 512, image_tokens)
        )
        if storage._cdata not in parameter_storages and not matrix:
            # the tensor is kept alive so that its storage's address is not reused
            saved[storage._cdata] = storage.nbytes(), tensor
        return tensor

    kind = encoding.conditioning
    image_tokens = TOKENS_PER_REFERENCE * encoding.max_references if kind == "a2" else 0
    t, h, w = (encoding.frames - 1) // 4 + 1, encoding.height // 8, encoding.width // 8
    n = 0 if kind == "a2" else encoding.reference_slots or encoding.max_references
    num_tokens = tokens(encoding) * (t + n) // t
    with torch.device("meta"), FlopCounterMode(display=False) as flops:
        factory: dict[str, Any] = {"dtype": torch.bfloat16}
        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            shapes = {"a2": (20, t), "appended": (16, n), "vace": (96, n + t)}
            inputs = a2_conditioning.network_inputs(
                kind,
                torch.empty(1, 16, t + n * (kind == "vace"), h, w, **factory),
                torch.empty(1, *shapes[kind], h, w, **factory),
                torch.empty(1, image_tokens, network.config.image_dim, **factory) if image_tokens else None,
            )
            text = torch.empty(1, 512, network.config.text_dim, **factory)
            predicted = network(timestep=torch.empty(1), encoder_hidden_states=text, return_dict=False, **inputs)[0]
            forward = flops.get_total_flops()
            predicted.float().square().mean().backward()
    return forward, flops.get_total_flops(), sum(nbytes for nbytes, _ in saved.values())


def weight_bytes(network: Any, settings: Settings) -> int:
    """Return the bytes of a network's weights: the trainable ones in float32, the others in the frozen dtype.

    torchao quantises the weights of linear layers, with a float32 scale for each row; diffusers leaves out the time embedder.
    """
    import torch

    frozen, total = settings.frozen_dtype, 0
    linear = {f"{name}.weight" for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear)}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad or frozen == "float32":
            total += 4 * parameter.numel()
        elif name in linear and frozen != "bfloat16" and ".time_embedder." not in name:
            total += FROZEN_BYTES[frozen] * parameter.numel() + 4 * len(parameter)
        else:
            total += 2 * parameter.numel()
    return total


def memory_gb(
    weights: int, trainable: int, block_parameters: int, cost: Cost, settings: Settings, gpus: int
) -> dict[str, float]:
    """Return the memory per GPU by kind, GB; weights: bytes. Two blocks at a time are gathered in bfloat16."""
    num_shards = gpus // settings.data_parallel_replicate_degree
    adam = 2 if settings.optimizer == "adamw8bit" else 8
    return {
        "parameters": weights / num_shards / GB,
        "gradients": 4 * trainable / num_shards / GB,
        "optimizer": adam * trainable / num_shards / GB,
        "average (EMA)": 4 * trainable / num_shards / GB,
        "two gathered blocks": 2 * 2 * block_parameters / GB if num_shards > 1 else 0.0,
        "activations": (cost.checkpointed_bytes if settings.activation_checkpointing else cost.saved_bytes)
        / settings.context_parallel_degree
        / GB,
        **(
            {"recomputed block": cost.block_bytes / settings.context_parallel_degree / GB}
            if settings.activation_checkpointing
            else {}
        ),
    }
