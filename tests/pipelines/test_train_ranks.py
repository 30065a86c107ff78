"""Several processes train the same as one: FSDP2, context parallelism, a killed run resumed on another number."""

import json
import os
import shutil
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


import tiny_shards  # noqa: E402
import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as multiprocessing  # noqa: E402
from diffusers import WanVACETransformer3DModel  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from model_zoo.a2 import tiny, trainable  # noqa: E402
from pipelines.process_group import ProcessInfo  # noqa: E402
from pipelines.train.parallelize import apply_fsdp  # noqa: E402
from pipelines.train.settings import PRESETS, Settings  # noqa: E402
from pipelines.train.trainer import train  # noqa: E402

HOW = replace(
    PRESETS["tiny"][0],
    frames=13,
    height=32,
    width=48,
    validation_fraction=0.25,
    augmentations=1,
    validation_augmentations=1,
)
SETTINGS = Settings(
    steps=4, global_batch_size=4, trainable="cross-attention", learning_rate=1e-3, flow_shift=1.0, mixed_precision="float32",
    num_workers=0, log_every=1, validate_every=4, checkpoint_interval=2,
)  # fmt: skip
SAME_LOSS = 1e-5  # relative: sums of float32 in another order
NEAR = 5e-6  # of a weight after four steps of 1e-3


def start(ranks: int, work, *args):
    """Forked processes that find one another as those of torchrun do. Not joined."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return multiprocessing.start_processes(
        enter, (ranks, port, work, args), nprocs=ranks, join=False, start_method="fork"
    )


def enter(rank: int, ranks: int, port: int, work, args) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    work(rank, ranks, *args)
    if dist.is_initialized():
        dist.destroy_process_group()


def step_of(rank: int, ranks: int, out: Path, settings: Settings) -> None:
    """Compile, checkpoint and shard a network, run two steps and write their losses and the norms of their gradients."""
    from functools import partial
    from types import SimpleNamespace

    from pipelines.process_group import init_distributed
    from pipelines.train.optimizer_step import TrainStep, prepare_model

    torch.compile = partial(torch.compile, backend="aot_eager")
    place = init_distributed() if ranks > 1 else ProcessInfo(0, 1, torch.device("cpu"))
    torch.manual_seed(0)
    network = WanVACETransformer3DModel(**tiny.TRANSFORMERS["vace"])
    learner = TrainStep(prepare_model(network, settings, place), torch.zeros(20, 3, 4, 6), settings, place)
    some = torch.Generator().manual_seed(1)
    shapes = {"video": (16, 3, 4, 6), "condition": (16, 1, 4, 6), "text": (5, tiny.DIM), "text_empty": (1, tiny.DIM)}
    every = [{name: torch.randn(*shape, generator=some) for name, shape in shapes.items()} for _ in range(2)]
    samples = [SimpleNamespace(key=f"s{n}", epoch=0, index=n, tensors=tensors) for n, tensors in enumerate(every)]
    steps = [learner.run(samples[rank::ranks], n) for n in range(2)]
    norms = [step.norms["all"] for step in steps]
    norms = [float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm) for norm in norms]
    (out / f"{ranks}-{rank}.json").write_text(json.dumps([*(step.loss for step in steps), *norms]))


@pytest.mark.slow
@pytest.mark.parametrize(("part", "frozen"), [("vace", "float32"), ("vace", "bfloat16"), ("lora", "bfloat16")])
def test_compiled_checkpointed_and_sharded_is_the_same_as_one_plain_process(tmp_path, part, frozen):
    precision = {"frozen_dtype": frozen, "mixed_precision": frozen}
    plain = replace(SETTINGS, global_batch_size=2, trainable=part, **precision)
    finish(start(1, step_of, tmp_path, plain))
    finish(start(2, step_of, tmp_path, replace(plain, activation_checkpointing=True, compile=True)))
    one, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    assert first == second
    # bfloat16 has 8 bits, and fused kernels round less often: a gradient sums these errors, a loss hardly
    loss, norm = (1e-4, 1e-4) if frozen == "float32" else (2e-3, 2e-2)
    assert first[:2] == pytest.approx(one[:2], rel=loss)
    assert first[2:] == pytest.approx(one[2:], rel=norm)


def finish(processes) -> None:
    while not processes.join():
        pass


def go(rank: int, ranks: int, packed: Path, out: Path, settings: Settings) -> None:
    train(str(packed), out, HOW, settings)


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in lines(out) if "loss" in line}


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "transformer" / "diffusion_pytorch_model.safetensors")


def assert_near(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Adam divides by a root, which enlarges the rounding of a gradient near 0: a few weights in a thousand may differ more."""
    far = torch.cat([(one[name] - other[name]).abs().flatten() for name in one])
    assert (far > NEAR).float().mean() < 1e-3
    assert far.max() < 2e-4  # a fifth of one step


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    return tiny_shards.make(tmp_path_factory.mktemp("packed"), tars=1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, packed) -> Path:
    out = tmp_path_factory.mktemp("alone")
    train(str(packed), out, HOW, SETTINGS)
    return out


def fresh(tmp_path: Path, alone: Path) -> Path:  # what the first process made, without its checkpoints
    for part in ("start", "encoded"):
        shutil.copytree(alone / part, tmp_path / part)
    return tmp_path


@pytest.mark.slow
def test_two_processes_train_what_one_trains_with_frozen_parameters_beside(tmp_path, packed, alone):
    finish(start(2, go, packed, fresh(tmp_path, alone), SETTINGS))
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=SAME_LOSS)
    one, two, before = (
        weights(alone),
        weights(tmp_path),
        load_file(alone / "start" / "transformer" / "diffusion_pytorch_model.safetensors"),
    )
    assert_near(one, two)
    moved = {name for name in one if not torch.equal(one[name], before[name])}
    assert moved
    assert all(".attn2." in name or "patch_embedding" in name or "image_embedder" in name for name in moved)
    held_out = [[line["val_loss"] for line in lines(out) if "val_loss" in line] for out in (alone, tmp_path)]
    assert held_out[0] == pytest.approx(held_out[1], rel=SAME_LOSS)


@pytest.mark.slow
def test_a_run_of_two_processes_continues_with_one_and_then_with_four(tmp_path, packed, alone):
    out = fresh(tmp_path, alone)
    finish(start(2, go, packed, out, replace(SETTINGS, steps=1, checkpoint_interval=1)))
    train(str(packed), out, HOW, replace(SETTINGS, steps=2))
    finish(start(4, go, packed, out, SETTINGS))
    assert losses(out) == pytest.approx(losses(alone), rel=SAME_LOSS)
    one, other = weights(alone), weights(out)
    assert_near(one, other)


@pytest.mark.slow
def test_two_processes_that_are_killed_go_on_as_one(tmp_path, packed, alone):
    out = fresh(tmp_path, alone)
    settings = replace(SETTINGS, steps=400)
    processes = start(2, go, packed, out, settings)
    while len(list(out.glob("checkpoints/step-000002/state.json"))) == 0:
        time.sleep(0.05)
        assert all(p.is_alive() for p in processes.processes)
    for process in processes.processes:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    reached = max(int(path.name[5:]) for path in out.glob("checkpoints/step-??????"))
    train(str(packed), out, HOW, replace(SETTINGS, steps=max(4, reached + 1)))
    ours, theirs = losses(out), losses(alone)
    assert {step: ours[step] for step in theirs} == pytest.approx(theirs, rel=SAME_LOSS)


def gradients_of_a_shared_sample(rank: int, ranks: int, out: Path) -> None:
    """Ulysses over `ranks` processes against one process, FSDP2 averaging in between."""
    torch.accelerator.device_count = lambda: 1  # diffusers asks for accelerators; there are processors only
    torch._C._get_accelerator = lambda *a: torch.device("cpu")
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    network = tiny_network()
    given = (
        torch.randn(1, 36, 4, 4, 6), torch.tensor([500.0]), torch.randn(1, 512, tiny.DIM), torch.randn(1, 34, tiny.DIM),
    )  # fmt: skip
    target = torch.randn(1, 16, 4, 4, 6)
    whole = gradients(network, given, target, 1.0)
    network.zero_grad()
    apply_fsdp(
        network,
        replace(SETTINGS, context_parallel_degree=ranks, data_parallel_shard_degree=1),
        ProcessInfo(rank, ranks, torch.device("cpu")),
    )
    # as the trainer scales: FSDP takes the mean, it wants the sum
    shared = gradients(network, given, target, float(ranks))
    worst = {n: float((shared[n] - g).abs().max() / (g.abs().max() + 1e-12)) for n, g in whole.items()}
    if rank == 0:
        (out / "worst.json").write_text(json.dumps(worst))


def tiny_network():
    from diffusers import WanTransformer3DModel

    network = WanTransformer3DModel(**tiny.TRANSFORMER | {"num_layers": 2})
    trainable.select(network, "cross-attention")
    return network


def gradients(network, given, target, scale: float) -> dict[str, torch.Tensor]:
    said = network(*given, return_dict=False)[0]
    ((said - target).square().mean() * scale).backward()
    grads = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    return {n: (g.full_tensor() if hasattr(g, "full_tensor") else g).clone() for n, g in grads.items()}


def test_gradients_of_a_sample_shared_by_two_processes_are_those_of_one(tmp_path):
    finish(start(2, gradients_of_a_shared_sample, tmp_path))
    worst = json.loads((tmp_path / "worst.json").read_text())
    assert {trainable.group_of(n) for n in worst} >= {"patch embedding", "image embedder", "cross-attention, image"}
    assert max(worst.values()) < 1e-5


@pytest.mark.slow
def test_two_workers_of_ray_train_what_one_process_trains(tmp_path, packed, alone):
    pytest.importorskip("ray.train")
    import ray

    from pipelines.train import on_ray

    out = fresh(tmp_path / "out", alone)
    ray.init("local", num_cpus=3, include_dashboard=False)
    try:
        on_ray.train("auto", 2, str(packed), out, HOW, replace(SETTINGS, steps=2), None)
    finally:
        ray.shutdown()
    assert losses(out) == pytest.approx({step: losses(alone)[step] for step in (1, 2)}, rel=SAME_LOSS)
