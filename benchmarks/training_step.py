"""Cost of a training step: ours against a plain loop over diffusers' network, training the paper's parameters and all of them.

    OMP_NUM_THREADS=1 python -m benchmarks.training_step --shape tiny                            # a CPU
    OMP_NUM_THREADS=1 python -m benchmarks.training_step --shape 1.3b --layers 2 --size 17 96 160
    python -m benchmarks.training_step --shape 1.3b --size 81 480 832 [--activation-checkpointing] [--compile]  # a GPU

Four variants alternate for several rounds, each in its own process, with the same random weights and samples. "ours" is the step
of `a2data train`, with EMA, gradient norms and keyed random draws; "plain" is a loop of thirty lines: autocast, a loss, AdamW
over WanTransformer3DModel. "partial" trains cross-attention, patch embedding and image embedder; "full" trains everything.
TFLOP/s count matrix operations as `a2data train estimate` does, without recomputation; MFU is their fraction of the GPU's data
sheet value. Times are medians: wall seconds on a synchronised GPU, CPU seconds of one thread on a CPU. Memory is the peak
allocation on a GPU, or the peak resident memory of the process on a CPU.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from pipelines.train import cost as plan
from pipelines.train.log import peak_tflops
from pipelines.train.settings import PRESETS, Settings, network_config
from stages.encode.settings import Encoding, tokens

WAYS = ("ours, partial", "plain, partial", "ours, full", "plain, full")
WORDS = 120  # tokens of a prompt; A2's are about as long


def config_of(shape: str, layers: int) -> dict[str, Any]:
    """Return the config of a preset's network. layers: number of blocks; 0: those of the preset."""
    return network_config(shape) | ({"num_layers": layers} if layers else {})


def network_of(config: dict[str, Any], device: torch.device) -> Any:
    """Return a float32 network with random weights, the same in every process."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    with device:
        return WanTransformer3DModel(**config)


def sample_of(number: int, config: dict[str, Any], encoding: Encoding) -> Any:
    """Return a random encoded sample in the loader's form, bfloat16 as stored: latents, and image tokens of the references."""
    t, h, w = (encoding.frames - 1) // 4 + 1, encoding.height // 8, encoding.width // 8
    rng = torch.Generator().manual_seed(number)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng).to(torch.bfloat16)

    condition = drawn(20, t, h, w)
    condition[:4] = 0
    condition[:4, : encoding.max_references] = 1
    tensors = {
        "video": drawn(16, t, h, w),
        "condition": condition,
        "text": drawn(WORDS, config.get("text_dim", 4096)),
        "text_empty": drawn(1, config.get("text_dim", 4096)),
        "image": drawn(plan.TOKENS_PER_REFERENCE * encoding.max_references, config["image_dim"]),
    }
    return SimpleNamespace(key=f"sample-{number}", epoch=0, index=number, tensors=tensors)


def ours(
    network: Any, settings: Settings, device: torch.device, encoding: Encoding
) -> Callable[[list[Any], int], float]:
    """Return the trainer's step: (samples, step) -> loss."""
    from pipelines.process_group import ProcessInfo
    from pipelines.train.optimizer_step import TrainStep, prepare_model

    place = ProcessInfo(0, 1, device)
    t, h, w = (encoding.frames - 1) // 4 + 1, encoding.height // 8, encoding.width // 8
    learner = TrainStep(prepare_model(network, settings, place), torch.zeros(20, t, h, w), settings, place)
    return lambda samples, step: learner.run(samples, step).loss


def plain(
    network: Any, settings: Settings, device: torch.device, encoding: Encoding
) -> Callable[[list[Any], int], float]:
    """Return the step of a plain loop with the same arithmetic: (samples, step) -> loss."""
    from model_zoo.a2 import trainable

    trainable.select(network, settings.trainable)
    network.train()
    if settings.activation_checkpointing:
        network.enable_gradient_checkpointing()
    if settings.compile:
        network.compile_repeated_blocks()
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def step(samples: list[Any], number: int) -> float:
        total = 0.0
        for sample in samples:
            given = {name: tensor[None].to(device, torch.float32) for name, tensor in sample.tensors.items()}
            text = torch.nn.functional.pad(given["text"], (0, 0, 0, 512 - given["text"].shape[1]))
            noise, level = torch.randn_like(given["video"]), torch.rand(1, device=device)
            noised = torch.lerp(given["video"], noise, level)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.mixed_precision == "bfloat16"):
                hidden = torch.cat([noised, given["condition"]], 1)
                predicted = network(hidden, level * 1000, text, given["image"], return_dict=False)[0]
            loss = torch.nn.functional.mse_loss(predicted.float(), noise - given["video"])
            (loss / len(samples)).backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(learning, settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total / len(samples)

    return step


def measured(way: str, config: dict[str, Any], encoding: Encoding, settings: Settings, steps: int) -> dict[str, Any]:
    """Return the seconds of some steps after a warm-up step, and the peak memory, GB."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loop, variant = way.split(", ")
    settings = replace(settings, trainable="cross-attention" if variant == "partial" else "full")
    network = network_of(config, device)
    step = (ours if loop == "ours" else plain)(network, settings, device, encoding)
    samples = [sample_of(number, config, encoding) for number in range(settings.global_batch_size)]
    seconds = []
    for number in range(steps + 1):
        began = clock(device)
        loss = step(samples, number)
        seconds.append(clock(device) - began)
        assert abs(loss) < float("inf"), f"{way}: the loss is {loss}"
    if device.type == "cuda":
        most = torch.cuda.max_memory_allocated() / 1e9
    else:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": seconds[1:], "gb": most, "peak": peak_tflops(device), "device": str(device)}


def clock(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def alone(way: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measure a variant in its own process."""
    given = {**vars(args), "way": way}
    command = [sys.executable, "-m", "benchmarks.training_step", "--one", json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        why = [line for line in done.stderr.splitlines() if line.strip()]
        raise RuntimeError(f"{way}: {why[-1] if why else f'exit code {done.returncode}'}")
    return json.loads(done.stdout.splitlines()[-1])


def asked_for(args: argparse.Namespace) -> tuple[dict[str, Any], Encoding, Settings]:
    """Return the network's config, the shape of samples and the settings given by the flags."""
    frames, height, width = args.size or ((17, 64, 112) if args.shape == "tiny" else (81, 480, 832))
    encoding = Encoding(frames=frames, height=height, width=width, max_references=args.references)
    precision = "bfloat16" if torch.cuda.is_available() else "float32"  # faster on a CPU
    settings = replace(
        PRESETS["14b"][1], global_batch_size=args.batch, mixed_precision=precision,
        activation_checkpointing=args.activation_checkpointing,
        compile=args.compile, num_workers=0, log_every=10**9, seed=0, caption_dropout_prob=0.0,
        reference_dropout_prob=0.0, steps=10**6,
    )  # fmt: skip
    return config_of(args.shape, args.layers), encoding, settings


def table(found: dict[str, list[dict[str, Any]]], cost: dict[str, float], batch: int) -> str:
    """Return a table of the variants. cost: floating point operations per sample, by variant."""
    median = {way: statistics.median([s for one in runs for s in one["seconds"]]) for way, runs in found.items()}
    most = {way: max(one["gb"] for one in runs) for way, runs in found.items()}
    peak = next(iter(found.values()))[0]["peak"]
    lines = ["way              step, s  10 % to 90 %      TFLOP/s     MFU  memory, GB"]
    for way, runs in found.items():
        every = sorted(s for one in runs for s in one["seconds"])
        low, high = every[len(every) // 10], every[-1 - len(every) // 10]
        rate = cost[way] * batch / median[way] / 1e12
        mfu = f"{rate / peak:.1%}" if peak else "-"
        lines.append(f"{way:15} {median[way]:8.3f}  {low:6.3f} … {high:6.3f} {rate:10.3f} {mfu:>7} {most[way]:11.2f}")
    for kind in ("partial", "full"):
        ratio, memory = (of[f"ours, {kind}"] / of[f"plain, {kind}"] for of in (median, most))
        lines.append(f"{kind}: ours takes {ratio:.2f} of the plain loop's time, {memory:.2f} of its memory")
    for loop in ("ours", "plain"):
        saved, memory = (1 - of[f"{loop}, partial"] / of[f"{loop}, full"] for of in (median, most))
        lines.append(f"{loop}: partial saves {saved:.0%} of the full step's time, {memory:.0%} of its memory")
    return "\n".join(lines)


def operations(config: dict[str, Any], encoding: Encoding, settings: Settings) -> dict[str, float]:
    """Return the floating point operations per sample, forward and backward, by variant; text is padded to 512 tokens."""
    variants = {"partial": "cross-attention", "full": "full"}
    by = {k: plan.sample_cost(config, encoding, replace(settings, trainable=v)).step_flops for k, v in variants.items()}
    return {way: by[way.split(", ")[1]] for way in WAYS}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=("tiny", "1.3b", "14b"), default="tiny")
    parser.add_argument("--layers", type=int, default=0, help="number of blocks; 0: those of the shape (default: 0)")
    parser.add_argument("--size", type=int, nargs=3, metavar=("FRAMES", "HEIGHT", "WIDTH"))
    parser.add_argument("--references", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1, help="samples per step, one forward pass each (default: 1)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps per process (default: 3)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        args = argparse.Namespace(**json.loads(args.one))
        print(json.dumps(measured(args.way, *asked_for(args), args.steps)))
        return
    config, encoding, settings = asked_for(args)
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way in WAYS:
            found[way].append(alone(way, args))
    print(
        f"{args.shape}, {config['num_layers']} blocks, {encoding.frames} x {encoding.height} x {encoding.width}: "
        f"{tokens(encoding)} tokens, {args.batch} samples per step, {settings.mixed_precision} on {found[WAYS[0]][0]['device']}"
    )
    print(table(found, operations(config, encoding, settings), args.batch))


if __name__ == "__main__":
    main()
