"""The commands `a2data train` and `a2data train plan`."""

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pipelines.cli.flags import add_flags as add_fields
from pipelines.train.settings import PRESETS
from pipelines.train.trainer import train


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
        from pipelines.train import cost as train_plan

        print(train_plan.plan(args.preset, encoding, settings, args.gpus, args.tflops * 1e12, args.mfu))
        return 0
    if args.out is None:
        raise ValueError("say with --out where checkpoints and the trained model go")
    if args.model is None and args.preset != "tiny":
        raise ValueError(f"the preset {args.preset} fine-tunes a network: name its folder with --model")
    if args.ray:
        from pipelines.train import on_ray

        on_ray.train(args.ray, args.gpus, args.shards, args.out, encoding, settings, args.model)
        return 0
    train(args.shards, args.out, encoding, settings, args.model)
    return 0


def changed(preset: Any, args: argparse.Namespace) -> Any:
    """A preset with the flags that were given."""
    given = {f.name: v for f in fields(preset) if (v := getattr(args, f.name, None)) is not None}
    return replace(preset, **given)
