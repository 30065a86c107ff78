"""DPO against plain fine-tuning on the better videos, from one reference model, on held-out pairs; and the reward model.

    OMP_NUM_THREADS=1 python -m benchmarks.preferences SHARDS [--seeds 0 1 2] [--steps 150] [--augmentations 8]
        [--reference-steps 400] [--held-out 0.3]

The pairs are made from the shards by rule, and the tiny preset is trained on the shards as the reference model. Both methods
train LoRA of the same rank with the same seeds, steps and rate. With augmentations, both videos of a pair and its references
are recoloured and mirrored alike (stages.encode.augment); held-out pairs are not. A margin is the difference of the implicit
rewards, beta / 2 times how much more the squared error of the better video fell than that of the worse one; intervals are
Student's t over held-out clips. The error of better videos must not rise: a model can also prefer them by making the worse ones
even less likely.
"""

import argparse
import shutil
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.prefer import reward
from pipelines.prefer.make import kind_of, make
from pipelines.prefer.reward import to_text
from pipelines.prefer.reward_settings import RewardSettings
from pipelines.prefer.stage import Prefer
from pipelines.statistics import student
from pipelines.train.settings import DPO_TINY, PRESETS

KINDS = "reversed|frozen|frame-rate|jitter|local|copy-paste|same"
METHODS = {"dpo": "DPO", "dpop": "DPO-Positive, weight 5", "flow": "fine-tuning on better videos"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--reference-steps", type=int, default=400)
    parser.add_argument("--augmentations", type=int, default=8, help="variants of each training pair (default: 8)")
    parser.add_argument("--held-out", type=float, default=0.3, help="fraction of held-out clips (default: 0.3)")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--beta", type=float, default=500.0)
    parser.add_argument("--grades", default="3")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or Path(folder)
        pairs = str(out / "pairs")
        print(make(Prefer(shards=args.shards, out=pairs, frames=13, grades=args.grades, kinds=KINDS), args.held_out))
        reference = trained_reference(args.shards, out / "reference", args.reference_steps, args.held_out)
        found = {
            (method, seed): trained(pairs, reference, out, method, seed, args)
            for method in args.methods
            for seed in args.seeds
        }
        show(found, args.methods, args.seeds)
        for seed in args.seeds:
            print(f"reward model, seed {seed}: " + to_text(train_reward(pairs, out / f"reward-{seed}", seed)))


def train_reward(pairs: str, out: Path, seed: int) -> dict[str, Any]:
    """Train the tiny reward model and return its results on held-out pairs."""
    return reward.train(pairs, out, RewardSettings(seed=seed), log=lambda text: None)


def trained_reference(shards: str, out: Path, steps: int, held_out: float) -> Path:
    """Train the tiny preset on the shards without the clips whose pairs are held out, and return its folder."""
    from pipelines.train.trainer import train

    encoding, settings = PRESETS["tiny"]
    encoding = replace(encoding, validation_augmentations=1, validation_fraction=held_out)
    settings = replace(settings, steps=steps, decay_steps=steps // 3, validate_every=steps, checkpoint_interval=steps)
    train(shards, out, encoding, settings)
    return out / "model"


def trained(pairs: str, reference: Path, out: Path, method: str, seed: int, args: argparse.Namespace) -> Any:
    """Train adapters on the pairs by one method and return the results on held-out pairs."""
    from pipelines.process_group import init_distributed
    from pipelines.train import preference
    from pipelines.train.start import prepare
    from pipelines.train.trainer import Trainer

    encoding = replace(PRESETS["tiny"][0], augmentations=args.augmentations, validation_augmentations=1)
    settings = replace(PRESETS["tiny"][1], **DPO_TINY, validate_samples=1 << 30, micro_batch_size=8)
    settings = replace(
        settings,
        objective="flow" if method == "flow" else "dpo",
        dpo_beta=args.beta,
        dpo_positive=5.0 if method == "dpop" else 0.0,
        global_batch_size=8,
        seed=seed,
        steps=args.steps,
        decay_steps=args.steps // 3,
        validate_every=args.steps,
        checkpoint_interval=args.steps,
    )
    mine, place = out / f"{method}-{seed}", init_distributed()
    made = next(out.glob("*-*/encoded/encoding.json"), None)  # of another training on the same pairs
    if made and not mine.exists():
        shutil.copytree(made.parent, mine / "encoded")
    prepare(pairs, mine, encoding, reference, False, place.device)
    run = Trainer(mine, reference, encoding, settings, place)
    run.train()
    run.log.close()
    run.train_step.swap_ema_weights()
    return preference.evaluate_pairs(
        run.train_step.network.eval(), run.held_out, run.train_step.null_condition, settings
    )


def show(found: dict[tuple[str, int], Any], methods: list[str], seeds: list[int]) -> None:
    print("seed  method                         accuracy   margin  error of better  of worse")
    for (method, seed), one in found.items():
        print(
            f"{seed:4d}  {METHODS[method]:30} {one.accuracy:7.1%} {one.margin:+9.3f} {one.better_change:+13.2%} "
            f"{one.worse_change:+9.2%}"
        )
    for method in methods:
        margins: dict[str, list[float]] = defaultdict(list)
        kinds: dict[str, list[float]] = defaultdict(list)
        for seed in seeds:
            for key, margin in found[method, seed].pairs.items():
                kind = kind_of(key)
                margins[key.partition(f"-{kind}")[0]].append(margin)
                kinds[kind].append(margin)
        middle, low, high = student(np.array([np.mean(each) for each in margins.values()]))
        print(
            f"{METHODS[method]}: margin {middle:+.3f}, 95 % over {len(margins)} held-out clips {low:+.3f} … {high:+.3f}"
        )
        print("  accuracy by kind: " + "  ".join(f"{kind} {np.mean(np.array(m) > 0):.0%}" for kind, m in kinds.items()))


if __name__ == "__main__":
    main()
