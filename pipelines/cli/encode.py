"""The command `a2data encode`."""

import argparse
from dataclasses import fields
from pathlib import Path

from pipelines.cli.flags import add_flags as add_fields
from pipelines.encode import Encoding, encode


def add_flags(asked: argparse.ArgumentParser) -> None:
    """Give the parser of `a2data encode` its flags."""
    asked.add_argument("shards", metavar="SHARDS", help="the folder of packed shards")
    asked.add_argument("--out", required=True, help="folder of the encoded samples")
    asked.add_argument(
        "--model", type=Path, required=True, help="checkpoint folder with the encoders, as a2data sample takes it"
    )
    asked.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    asked.add_argument("--ray", metavar="ADDRESS", help="an actor to each tar at a time: a cluster's address, or auto")
    add_fields(asked.add_argument_group("samples"), Encoding())  # type: ignore[arg-type]
    asked.set_defaults(do=command)


def command(args: argparse.Namespace) -> int:
    """Do what the flags say."""
    from model_zoo import torchvision_shim

    torchvision_shim.install()
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
