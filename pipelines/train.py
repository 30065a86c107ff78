"""`a2data train`: shards in, a fine-tuned A2 transformer out; the same command again goes on where it stopped, to the bit.

    a2data train SHARDS --preset tiny --out DIR
    torchrun --nproc-per-node 8 -m pipelines.cli train SHARDS --preset 14b --model A2 --out DIR
    a2data train SHARDS --preset 14b --model A2 --out DIR --ray auto --gpus 8

Everything that chance decides is keyed by seed, epoch, sample and purpose, so that neither an interruption nor the number of
processes changes what is trained.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from pipelines.encode import Encoding, read_index, tokens
from pipelines.settings import add_flags as add_fields
from pipelines.training.prepare import check, optimizer_of, prepare
from pipelines.training.settings import PRESETS, Settings, check_same


def add_flags(train: argparse.ArgumentParser) -> None:
    """Give the parser of `a2data train` its flags. `train plan` trains nothing."""
    train.add_argument("shards", metavar="SHARDS", help="the folder of packed shards; or `plan`: what would it take?")
    train.add_argument("--preset", choices=sorted(PRESETS), default="tiny", help="sizes and settings to start from")
    train.add_argument(
        "--out", type=Path, help="folder of the encoded samples, checkpoints, logs and the trained model"
    )
    train.add_argument(
        "--model", type=Path, help="checkpoint folder to start from, as a2data sample takes it (tiny: made)"
    )
    train.add_argument("--ray", metavar="ADDRESS", help="train on a cluster by Ray Train: its address, or auto")
    train.add_argument(
        "--gpus", type=int, default=8, help="for plan and Ray: how many; CPUs where a cluster has no GPU"
    )
    train.add_argument("--tflops", type=float, default=989.0, help="for plan: bfloat16 TFLOP/s of one at its best")
    train.add_argument("--mfu", type=float, default=0.3, help="for plan: share of it that is reached")
    encoding, settings = PRESETS["14b"]
    add_fields(train.add_argument_group("samples"), encoding)  # type: ignore[arg-type]
    add_fields(train.add_argument_group("training"), settings)  # type: ignore[arg-type]
    train.set_defaults(do=command)


def command(args: argparse.Namespace) -> int:
    """Do what the flags say."""
    encoding, settings = (changed(preset, args) for preset in PRESETS[args.preset])
    if args.shards == "plan":
        from pipelines.training import plan as train_plan

        print(train_plan.plan(args.preset, encoding, settings, args.gpus, args.tflops * 1e12, args.mfu))
        return 0
    if args.out is None:
        raise ValueError("say with --out where checkpoints and the trained model go")
    if args.model is None and args.preset != "tiny":
        raise ValueError(f"the preset {args.preset} fine-tunes a network: name its folder with --model")
    if args.ray:
        from pipelines.training import on_ray

        on_ray.train(args.ray, args.gpus, args.shards, args.out, encoding, settings, args.model)
        return 0
    train(args.shards, args.out, encoding, settings, args.model)
    return 0


def changed(preset: Any, args: argparse.Namespace) -> Any:
    """A preset with the flags that were given."""
    given = {f.name: v for f in fields(preset) if (v := getattr(args, f.name, None)) is not None}
    return replace(preset, **given)


def train(
    shards: str, out: Path, encoding: Encoding, settings: Settings, model: Path | None = None
) -> dict[str, float]:
    """Train until settings.steps are done, going on from what is in `out`. Returns the last held-out losses.

    Raises ValueError with a sentence for data, settings or a model that do not fit, OSError for a full disk, FloatingPointError
    for a loss that is no number; what was saved before stays.
    """
    from model_zoo import torchvision_shim

    torchvision_shim.install()
    import torch.distributed as dist

    from model_zoo import a2
    from pipelines.training.mesh import join

    a2.quiet()
    place = join()
    check(settings, place.ranks)
    begin = model or out / "start"
    if place.rank == 0:
        prepare(shards, out, encoding, begin, model is None, place.device)
    if place.ranks > 1:
        dist.barrier()
    run = Run(out, begin, encoding, settings, place)
    try:
        return run.go()
    finally:
        run.log.close()


class Run:
    """One process of a training."""

    def __init__(self, out: Path, begin: Path, encoding: Encoding, settings: Settings, place: Any):
        import torch
        from safetensors.torch import load_file

        from pipelines.training.checkpoints import Checkpoints
        from pipelines.training.log import Log
        from pipelines.training.plan import of_sample

        self.out, self.begin, self.settings, self.place = out, begin, settings, place
        self.network = self.built()
        self.nothing = load_file(out / "encoded" / "no_references.safetensors")["condition"]
        learning = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        self.optimizer = optimizer_of(list(learning.values()), settings)
        self.average = {name: parameter.detach().clone() for name, parameter in learning.items()}
        self.roles = {row.clip_id: row.roles for row in read_index(self.folder("train"))}
        bucket = (encoding.frames, encoding.height, encoding.width)
        self.loader, self.held_out = self.readers(bucket)
        self.checkpoints = Checkpoints(out / "checkpoints", settings.keep)
        timed = place.rank == 0 and place.device.type == "cuda"  # of a CPU nobody asks how many
        cost = of_sample(dict(self.network.config), encoding, settings).step if timed else 0.0
        self.log = Log(out, place, cost, tokens(encoding))
        self.step, self.seconds = 0, 0.0
        self.last: dict[str, float] = {}
        torch.manual_seed(settings.seed)  # nothing draws from it; if something ever does, it is the same every time

    def folder(self, split: str) -> Any:
        from a2data.folder import Folder

        return Folder(str(self.out / "encoded" / split))

    def built(self) -> Any:
        """The network that learns, on its device, shared with the other processes."""
        import torch
        from diffusers import WanTransformer3DModel

        from model_zoo import a2_padding, a2_trainable
        from pipelines.training.mesh import spread

        network = WanTransformer3DModel.from_pretrained(
            self.begin / "transformer", torch_dtype=torch.float32, local_files_only=True
        )
        if network.config.in_channels != 36 or network.config.image_dim is None:
            raise ValueError(
                f"the transformer in {self.begin} takes no references: it is no image-to-video network of Wan"
            )
        a2_trainable.choose(network, self.settings.variant, self.settings.lora_rank)
        if self.place.rank == 0:
            print(a2_trainable.in_words(a2_trainable.table(network)), flush=True)
        network = network.to(self.place.device).train()
        if self.settings.recompute:
            network.enable_gradient_checkpointing()
        spread(network, self.settings, self.place)
        if self.place.device.type == "cpu" and self.settings.context == 1:
            a2_padding.shorten(network)
        if self.settings.compile:
            network.compile_repeated_blocks()
        return network

    def readers(self, bucket: tuple[int, int, int]) -> tuple[Any, list[Any]]:
        """The loader of the samples that train, and the held-out samples."""
        from a2data.loader import Loader
        from pipelines.training.mesh import data_rank

        rank, ranks = data_rank(self.settings, self.place)
        common: dict[str, Any] = {"view": "encoded", "index": "index.parquet", "buckets": [bucket], "tail": "fill"}
        loader = Loader(
            self.folder("train").root, seed=self.settings.seed, global_batch=self.settings.batch, rank=rank, ranks=ranks,
            workers=self.settings.workers, **common,
        )  # fmt: skip
        there = self.folder("held-out")
        if "index.parquet" not in there.names():
            return loader, []
        count = min(self.settings.validate_samples, len(read_index(there)))
        aside = iter(Loader(there.root, seed=0, global_batch=1, **common))
        return loader, [next(aside)[0] for _ in range(count)]

    def go(self) -> dict[str, float]:
        """From the newest checkpoint to the last step."""
        known = self.checkpoints.load(self.network, self.optimizer, self.average)
        if known:
            check_same(known["settings"], self.settings)
            self.loader.load_state_dict(known["loader"])
            self.step, self.seconds, self.last = known["step"], known["seconds"], known["last"]
            self.say(f"going on after step {self.step}")
        elif self.held_out:
            self.validate()
        batches = iter(self.loader)
        while self.step < self.settings.steps:
            began = time.perf_counter()
            samples = next(batches)
            self.log.waited_s += time.perf_counter() - began
            loss = self.learn(samples)
            self.step, self.seconds = self.step + 1, self.seconds + time.perf_counter() - began
            if self.due(self.settings.log_every):
                self.log.line(self.step, loss, self.rate())
            if self.held_out and self.due(self.settings.validate_every):
                self.validate()
            if self.due(self.settings.save_every):
                self.save()
        self.checkpoints.finish()
        self.export()
        return self.last

    def due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.steps

    def rate(self) -> float:
        """The learning rate of the next step."""
        rate = self.settings.learning_rate * min(1.0, (self.step + 1) / max(1, self.settings.warmup))
        return rate * min(1.0, (self.settings.steps - self.step) / max(1, self.settings.cooldown))

    def learn(self, samples: Sequence[Any]) -> float:
        """One step of the optimiser. Returns the mean loss of the batch over all processes."""
        import torch
        import torch.distributed as dist

        from pipelines.training import examples as train_examples

        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        ranks = self.place.ranks
        mine = torch.zeros((), dtype=torch.float64, device=self.place.device)
        odd = []
        for start in range(0, len(samples), self.settings.together):
            group = samples[start : start + self.settings.together]
            examples = [train_examples.drawn(s, self.nothing, self.settings, self.place.device) for s in group]
            losses = train_examples.losses(self.network, examples, self.settings.precision)
            # FSDP takes the mean over processes; what is wanted is the mean over samples
            (losses.sum() * (ranks / self.settings.batch)).backward()
            for sample, example, value in zip(group, examples, losses.tolist(), strict=True):
                mine += value
                odd += [] if abs(value) < float("inf") else [sample.key]
                self.log.sample(value, example.level, example.slots, self.roles.get(sample.key, []))
        if ranks > 1:
            dist.all_reduce(mine)
            mine /= self.settings.context
        mean = float(mine) / self.settings.batch
        if not abs(mean) < float("inf"):
            raise FloatingPointError(
                f"the loss of step {self.step + 1} is {mean}: {train_examples.why(samples, odd)}. Nothing was learnt from it; "
                "the checkpoints are those before it"
            )
        self.norms()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.follow()
        return mean

    def norms(self) -> None:
        """Clip the gradient once a step; its norm, and that of each group of parameters before clipping, go into the log."""
        import torch

        from model_zoo.a2_trainable import group_of
        from pipelines.training import mesh

        groups: dict[str, list[Any]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.grad is not None:
                groups.setdefault(group_of(name), []).append(parameter)
        everything = [p for group in groups.values() for p in group]
        if (self.step + 1) % self.settings.log_every == 0:
            of = {name: torch.nn.utils.get_total_norm([p.grad for p in group]) for name, group in groups.items()}
            self.log.norms = {name: mesh.whole(norm) for name, norm in of.items()}
        self.log.norms["all"] = mesh.whole(torch.nn.utils.clip_grad_norm_(everything, self.settings.clip))

    def follow(self) -> None:
        """Move the average towards the parameters; at the beginning faster, so that it does not remember the start."""
        import torch

        from pipelines.training import mesh

        stays = min(self.settings.ema, (self.step + 1) / (self.step + 10))
        learning = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, average in self.average.items():
                mesh.local(average).lerp_(mesh.local(learning[name].detach()), 1 - stays)

    def swap(self) -> None:
        """Exchange parameters and average; done again, it is undone."""
        import torch
        from torch.distributed.fsdp import FSDPModule

        from pipelines.training import mesh

        for module in self.network.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # without a backward pass, the outermost stays gathered
        learning = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, average in self.average.items():
                one, other = mesh.local(learning[name].detach()), mesh.local(average)
                kept = one.clone()
                one.copy_(other)
                other.copy_(kept)

    def validate(self) -> None:
        """Held-out losses of the average."""
        from pipelines.training.mesh import data_rank
        from pipelines.training.validation import held_out

        self.swap()
        self.network.eval()
        how = self.settings.precision, self.settings.together
        found = held_out(self.network, self.held_out, self.nothing, *how, *data_rank(self.settings, self.place))
        self.network.train()
        self.swap()
        self.last = {"held_out": found.right, "held_out_shuffled": found.shuffled, "gap": found.gap}
        self.log.held_out(self.step, found)

    def save(self) -> None:
        about = {
            "settings": asdict(self.settings),
            "loader": self.loader.state_dict(),
            "seconds": self.seconds,
            "last": self.last,
            "held_out": self.last.get("held_out"),
        }
        self.checkpoints.save(self.step, self.network, self.optimizer, self.average, about)

    def export(self) -> None:
        """DIR/model: the average in a folder that a2data sample and diffusers open."""
        from pipelines.training.export import export

        self.swap()
        export(self.network, self.begin, self.out / "model", self.place.rank == 0, self.settings.variant == "lora")
        self.swap()
        self.say(f"{self.out / 'model'}: `a2data sample` takes it; {self.seconds:.0f} s of training")
        if self.place.rank == 0:
            (self.out / "settings.json").write_text(json.dumps(asdict(self.settings), indent=1))

    def say(self, text: str) -> None:
        if self.place.rank == 0:
            print(text, flush=True)


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
