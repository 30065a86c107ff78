"""The command `a2data encode`."""

import argparse
from pathlib import Path

from pipelines.cli.flags import add_settings, given
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
    add_settings(sub.add_argument_group("samples"), Encoding)
    sub.set_defaults(do=command)


def command(args: argparse.Namespace) -> int:
    """Encode the shards and print how many samples were encoded for training and validation."""

    import torch

    device, spread = args.device or ("cuda" if torch.cuda.is_available() else "cpu"), None
    if args.ray:
        from pipelines.run import on_ray
        from pipelines.train.on_ray import encode_tars

        device, spread = on_ray.device(args.ray, args.device), encode_tars
    counts = encode(args.shards, args.out, args.model, Encoding(**given(args, Encoding)), device, spread=spread)
    print(f"{args.out}: {counts['train']} samples to train on, {counts['held-out']} held out")
    return 0
