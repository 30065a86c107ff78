"""The command `a2data encode`."""

import argparse
from functools import partial
from pathlib import Path

from pipelines.cli import session
from pipelines.cli.flags import add_settings, given_values
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
    add_settings(sub.add_argument_group("samples"), Encoding)
    execution = sub.add_argument_group("execution")
    execution.add_argument("--device", help="cpu or cuda (default: cuda if available)")
    execution.add_argument("--retry", action="store_true", help="encode the tars with failed samples again")
    session.add_flags(execution)  # type: ignore[arg-type]
    sub.set_defaults(func=command)


def command(args: argparse.Namespace) -> int:
    """Encode the shards and print how many samples were encoded for training and validation."""
    if args.ray:
        from pipelines.run import on_ray

        device = on_ray.device(args.ray, args.device)
    else:
        import torch

        device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    encoding, run = Encoding(**given_values(args, Encoding)), partial(session.run_stages, args)
    counts = encode(args.shards, args.out, args.model, encoding, device, run, args.retry)
    print(f"{args.out}: {counts['train']} samples to train on, {counts['held-out']} held out")
    return 0
