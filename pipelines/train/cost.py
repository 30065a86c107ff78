"""`a2data train plan`: memory and time of a training before anyone pays for a GPU.

The network is built on the meta device, where tensors have shapes and no content. Floating point operations are those that
PyTorch counts in a forward and backward pass; what a pass keeps for the backward pass is counted, too. Both are linear in
the number of blocks, so that one and two blocks say them for all.
"""

from typing import Any, NamedTuple

from pipelines.encode import Encoding, tokens
from pipelines.train.settings import Settings, network_config

IMAGE_TOKENS = 257  # of CLIP ViT-H/14, for each reference
GB = 1e9


class Cost(NamedTuple):
    """Of one sample through the network."""

    forward: float  # floating point operations
    step: float  # forward and backward, without recomputing
    kept: float  # bytes that the forward pass keeps for the backward pass
    block: float  # the same, of one block
    inputs: float  # the same, where blocks are recomputed: their inputs, and all outside of them


def plan(preset: str, encoding: Encoding, settings: Settings, gpus: int, peak_flops: float, share: float) -> str:
    """Parameters, memory on a GPU and time of a step, in words. Raises ValueError for numbers that do not fit one another."""
    from model_zoo import torchvision_shim
    from model_zoo.a2 import trainable as a2_trainable
    from model_zoo.a2.references import check_size

    torchvision_shim.install()
    check_size(encoding.height, encoding.width, encoding.frames, encoding.max_references)
    replicate, context = settings.data_parallel_replicate_degree, settings.context_parallel_degree
    if gpus % (replicate * context) or settings.global_batch_size % (gpus // context):
        raise ValueError(
            f"{gpus} GPUs, data_parallel_replicate_degree {replicate}, context_parallel_degree {context}, global_batch_size "
            f"{settings.global_batch_size}: GPUs must be divisible by replicate x context, the batch by GPUs / context"
        )
    config = network_config(preset)
    network = on_meta(config)
    a2_trainable.choose(network, settings.trainable, settings.lora_rank)
    rows = a2_trainable.table(network)
    block = sum(p.numel() for p in network.blocks[0].parameters())
    cost = of_sample(config, encoding, settings)
    memory = memory_gb(rows[-1].all, rows[-1].trainable, block, cost, settings, gpus)
    executed = cost.step + cost.forward * settings.activation_checkpointing
    per_gpu = settings.global_batch_size * executed / gpus
    lines = [
        f"preset {preset}, variant {settings.trainable}: {encoding.frames} x {encoding.height} x {encoding.width}, "
        f"{encoding.max_references} references, batch {settings.global_batch_size} on {gpus} GPUs "
        f"(shard {gpus // replicate // context}, replicate {replicate}, context {context})",
        "",
        a2_trainable.in_words(rows),
        "",
        f"{'forward pass of a sample':40} {cost.forward / 1e15:10.3f} PFLOP",
        f"{'forward and backward':40} {cost.step / 1e15:10.3f} PFLOP",
        *(
            [f"{'with blocks recomputed':40} {executed / 1e15:10.3f} PFLOP"]
            if settings.activation_checkpointing
            else []
        ),
        f"{'a step, each GPU':40} {per_gpu / 1e15:10.1f} PFLOP",
        f"{f'at {share:.0%} of {peak_flops / 1e12:.0f} TFLOP/s':40} {per_gpu / (peak_flops * share):10.1f} s a step",
        f"{f'{settings.steps} steps':40} {settings.steps * per_gpu / (peak_flops * share) / 3600:10.1f} h",
        "",
        "memory on each GPU, GB",
        *(f"  {name:38} {gb:10.1f}" for name, gb in memory.items()),
        f"  {'together':38} {sum(memory.values()):10.1f}",
        "",
        "Operations and bytes are counted on the meta device; the share of the peak is an assumption (--mfu).",
    ]
    return "\n".join(lines)


def on_meta(config: dict[str, Any], layers: int | None = None) -> Any:
    """The network without content."""
    import torch
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        return WanTransformer3DModel(**config | ({"num_layers": layers} if layers else {}))


def of_sample(config: dict[str, Any], encoding: Encoding, settings: Settings) -> Cost:
    """What a sample costs, from networks of one and of two blocks."""
    one, two = (measured(config, layers, encoding, settings) for layers in (1, 2))
    forward, step, kept = (a + (b - a) * (config["num_layers"] - 1) for a, b in zip(one, two, strict=True))
    block = two[2] - one[2]
    hidden = 2 * tokens(encoding) * config["num_attention_heads"] * config["attention_head_dim"]  # bfloat16
    return Cost(forward, step, kept, block, one[2] - block + hidden * config["num_layers"])


def measured(config: dict[str, Any], layers: int, encoding: Encoding, settings: Settings) -> tuple[float, float, float]:
    """Operations forward, operations of a step and kept bytes of a network with so many blocks, in bfloat16.

    The meta device has the plain attention alone, which keeps its matrices, of a size of tokens x tokens; those of GPUs make them
    anew, and they are not counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from model_zoo.a2 import trainable as a2_trainable

    network = on_meta(config, layers)
    a2_trainable.choose(network, settings.trainable, settings.lora_rank)
    network = network.to(torch.bfloat16).train()
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, tuple[int, Any]] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        matrix = tensor.ndim >= 3 and tensor.shape[-2] == every and tensor.shape[-1] in (every, 512, seen)
        if storage._cdata not in own and not matrix:
            kept[storage._cdata] = storage.nbytes(), tensor  # held, so that no other storage gets its address
        return tensor

    every, seen = tokens(encoding), IMAGE_TOKENS * encoding.max_references
    t, h, w = (encoding.frames - 1) // 4 + 1, encoding.height // 8, encoding.width // 8
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        given: dict[str, Any] = {"dtype": torch.bfloat16}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            said = network(
                torch.empty(1, 36, t, h, w, **given),
                torch.empty(1),
                torch.empty(1, 512, network.config.text_dim, **given),
                torch.empty(1, seen, network.config.image_dim, **given),
                return_dict=False,
            )[0]
            forward = counted.get_total_flops()
            said.float().square().mean().backward()
    return forward, counted.get_total_flops(), sum(nbytes for nbytes, _ in kept.values())


def memory_gb(
    parameters: int, trainable: int, block: int, cost: Cost, settings: Settings, gpus: int
) -> dict[str, float]:
    """What lies on each GPU, by kind. Parameters are kept in float32, gathered in bfloat16; two blocks are gathered at a time."""
    over = gpus // settings.data_parallel_replicate_degree
    adam = 2 if settings.optimizer == "adamw8bit" else 8
    return {
        "parameters": 4 * parameters / over / GB,
        "gradients": 4 * trainable / over / GB,
        "optimiser": adam * trainable / over / GB,
        "average (EMA)": 4 * trainable / over / GB,
        "two gathered blocks": 2 * 2 * block / GB if over > 1 else 0.0,
        "kept for the backward pass": (cost.inputs if settings.activation_checkpointing else cost.kept)
        / settings.context_parallel_degree
        / GB,
        **(
            {"a block that is recomputed": cost.block / settings.context_parallel_degree / GB}
            if settings.activation_checkpointing
            else {}
        ),
    }
