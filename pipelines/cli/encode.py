"""The command `a2data encode`."""

import argparse
from dataclasses import fields
from pathlib import Path

from pipelines.cli.flags import add_flags as add_fields
from pipelines.encode import encode
from stages.encode.settings import Encoding


def add_flags(sub: argparse.ArgumentParser) -> None:
    """Add the flags of `a2data encode`."""
    sub.add_argument("shards", metavar="SHARDS", help="folder of packed shards")
    sub.add_argument("--out", required=True, help="output folder for the encoded samples")
    sub.add_argument(
        "--model",
        type=Path,
        required=True,
        help="checkpoint folder with the encoders, in a format that a2data sample reads",
    )
    sub.add_argument("--device", help="cpu or cuda (default: cuda if available)")
    sub.add_argument("--ray", metavar="ADDRESS", help="Ray cluster address, or auto; each tar is encoded by one actor")
    add_fields(sub.add_argument_group("samples"), Encoding())  # type: ignore[arg-type]
    sub.set_defaults(do=command)


def command(args: argparse.Namespace) -> int:
    """Encode the shards and print how many samples were encoded for training and validation."""

    import torch

    given = {f.name: v for f in fields(Encoding) if (v := getattr(args, f.name, None)) is not None}
    device, spread = args.device or ("cuda" if torch.cuda.is_available() else "cpu"), None
    if args.ray:
        from pipelines.run import on_ray
        from pipelines.train.on_ray import encode_tars

        device, spread = on_ray.device(args.ray, args.device), encode_tars
    counts = encode(args.shards, args.out, args.model, Encoding(**given), device, spread=spread)
    print(f"{args.out}: {counts['train']} samples to train on, {counts['held-out']} held out")
    return 0
