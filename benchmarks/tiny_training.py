"""Reference use of networks trained on a2data's shards: the tiny preset, several seeds, one table.

    OMP_NUM_THREADS=1 python -m benchmarks.tiny_training demo/shards [--seeds 0 1 2] [--steps N] [--out DIR]

Encoders, encoded samples and the initial network are made once; a seed changes the order of the samples and all random draws.
Augmentations of a held-out clip are not independent, so the interval is Student's t over clips. The held-out loss is that of the
EMA weights at nine noise levels, with fixed noise. The gap is its relative increase with the references of other held-out clips.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.statistics import student


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or Path(folder)
        rows = [one(args.shards, out, seed, args.steps) for seed in args.seeds]
    show(rows)


def one(shards: str, out: Path, seed: int, steps: int | None) -> dict[str, Any]:
    """Train with one seed, in out/seed-N; return the losses of the log, CPU minutes, and the gap of each held-out clip."""
    from pipelines.train.settings import PRESETS
    from pipelines.train.trainer import train

    encoding, settings = PRESETS["tiny"]
    settings = replace(settings, seed=seed, steps=steps or settings.steps)
    mine = out / f"seed-{seed}"
    made = next(out.glob("seed-*/model"), None)  # of another, finished seed
    if made and not mine.exists():
        for part in ("start", "encoded"):
            shutil.copytree(made.parent / part, mine / part)
    began = time.process_time()
    train(shards, mine, encoding, settings)
    minutes = (time.process_time() - began) / 60
    lines = [json.loads(line) for line in (mine / "log.jsonl").read_text().splitlines()]
    return {"seed": seed, "minutes": minutes, "steps": settings.steps, **read(lines)}


def read(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first and last held-out loss of a log, and the gaps in total, by noise level and by clip."""
    held_out = [line for line in lines if "val_loss" in line]
    last = held_out[-1]
    levels = [key.removeprefix("val_loss/") for key in last if key.startswith("val_loss/level")]
    right, others = (np.array([last[f"{kind}/{key}"] for key in levels]) for kind in ("val_loss", "val_loss_shuffled"))
    first = held_out[0]["val_loss"]
    gap = last["val_loss_shuffled"] / last["val_loss"] - 1
    clips = {key: value for key, value in last.items() if key.startswith("gap/")}
    return {"first": first, "last": last["val_loss"], "gap": gap, "levels": others / right - 1, "clips": clips}


def show(rows: list[dict[str, Any]]) -> None:
    print("seed  steps  loss at 0  loss at the end  factor   gap  95 % over clips  CPU minutes")
    for row in rows:
        _, low, high = student(np.array(list(row["clips"].values())))
        print(
            f"{row['seed']:4d} {row['steps']:6d} {row['first']:10.3f} {row['last']:16.4f} {row['first'] / row['last']:7.2f}"
            f" {row['gap']:+6.1%} {low:+7.1%} … {high:+.1%} {row['minutes']:10.1f}"
        )
    clips = np.mean([list(row["clips"].values()) for row in rows], 0)
    mean, low, high = student(clips)
    print(f"all seeds: gap {mean:+.1%}, 95 % over {len(clips)} held-out clips {low:+.1%} … {high:+.1%}")
    levels = np.mean([row["levels"] for row in rows], 0)
    print("gap by noise level: " + "  ".join(f"{(n + 1) / 10:.1f} {gap:+.1%}" for n, gap in enumerate(levels)))


if __name__ == "__main__":
    main()
