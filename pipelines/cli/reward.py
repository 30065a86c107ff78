"""The command `a2data reward train`."""

import argparse
from pathlib import Path

from pipelines.cli.flags import Parser, add_settings, given_values
from pipelines.prefer.reward_settings import RewardSettings


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the commands of `a2data reward`."""
    actions = command.add_subparsers(dest="action", required=True, metavar="COMMAND", parser_class=Parser)
    summary = "train a reward model on preference pairs and evaluate it on held-out pairs"
    actions.add_parser("train", help=summary, description=summary, build=_train_flags)


def _train_flags(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("pairs", metavar="PAIRS", help="folder of preference pairs, made by `a2data prefer`")
    sub.add_argument("--out", type=Path, required=True, help="output folder for the reward model")
    sub.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add_settings(sub.add_argument_group("training"), RewardSettings)
    sub.set_defaults(func=_train, verbose=False)


def _train(args: argparse.Namespace) -> int:
    """Train the model and print its results on held-out pairs."""
    from pipelines.prefer.reward import to_text, train

    print(to_text(train(args.pairs, args.out, RewardSettings(**given_values(args, RewardSettings)), args.device)))
    return 0
