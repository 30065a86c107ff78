"""The commands `a2data train` and `a2data train estimate`."""

import argparse
from dataclasses import replace
from pathlib import Path

from pipelines.cli.flags import add_settings, given_values
from pipelines.train.settings import DPO, DPO_TINY, PRESETS
from pipelines.train.trainer import train


def add_flags(train: argparse.ArgumentParser) -> None:
    """Add the flags of `a2data train`. `train estimate` prints the cost and does not train."""
    train.add_argument(
        "shards",
        metavar="SHARDS",
        nargs="?",
        help="folder of packed shards, or `estimate` to print the cost without training",
    )
    train.add_argument(
        "--pairs", metavar="DIR", help="folder of preference pairs, instead of SHARDS, for --objective dpo"
    )
    train.add_argument(
        "--reference",
        type=Path,
        metavar="MODEL",
        help="checkpoint folder that DPO starts from and compares with; --model then continues the adapters of an earlier export",
    )
    train.add_argument(
        "--preset", choices=sorted(PRESETS), default="tiny", help="base sizes and settings (default: tiny)"
    )
    train.add_argument(
        "--out", type=Path, help="output folder for encoded samples, checkpoints, logs and the trained model"
    )
    train.add_argument(
        "--model",
        type=Path,
        help="checkpoint folder to start from, in a format that a2data sample reads (preset tiny: created)",
    )
    train.add_argument("--ray", metavar="ADDRESS", help="Ray cluster address, or auto, to train with Ray Train")
    train.add_argument(
        "--gpus",
        type=int,
        default=8,
        help="number of GPUs for estimate and Ray; CPUs on a cluster without GPUs (default: 8)",
    )
    train.add_argument(
        "--tflops", type=float, default=989.0, help="peak bfloat16 TFLOP/s of one GPU, for estimate (default: 989)"
    )
    train.add_argument(
        "--mfu", type=float, default=0.3, help="model FLOPs utilization, 0 to 1, for estimate (default: 0.3)"
    )
    encoding, settings = PRESETS["14b"]
    add_settings(train.add_argument_group("samples"), encoding)
    add_settings(train.add_argument_group("training"), settings)
    train.set_defaults(func=command)


def command(args: argparse.Namespace) -> int:
    """Train, or print the cost of a training (`train estimate`)."""
    encoding, settings = PRESETS[args.preset]
    shards = args.pairs or args.shards
    if shards is None or (args.pairs and args.shards):
        raise ValueError("give either SHARDS or --pairs DIR")
    if args.objective == "dpo":
        encoding = replace(encoding, augmentations=1, validation_augmentations=1)
        settings = replace(settings, **(DPO_TINY if args.preset == "tiny" else DPO))
        if not args.reference or not args.pairs:
            raise ValueError("--objective dpo needs --pairs DIR, made by `a2data prefer make`, and --reference MODEL")
    elif args.pairs or args.reference:
        raise ValueError("--pairs and --reference belong to --objective dpo")
    encoding, settings = (
        replace(encoding, **given_values(args, encoding)),
        replace(settings, **given_values(args, settings)),
    )
    if shards == "estimate":
        from pipelines.train.cost import estimate

        print(estimate(args.preset, encoding, settings, args.gpus, args.tflops * 1e12, args.mfu))
        return 0
    if args.out is None:
        raise ValueError("--out is missing: give the folder for checkpoints and the trained model")
    if args.model is None and args.reference is None and args.preset != "tiny":
        raise ValueError(f"the preset {args.preset} fine-tunes a checkpoint: give its folder with --model")
    if args.ray:
        from pipelines.train import on_ray

        on_ray.train(args.ray, args.gpus, shards, args.out, encoding, settings, args.model, args.reference)
        return 0
    train(shards, args.out, encoding, settings, args.model, args.reference)
    return 0
