"""The three conditionings, trained with the tiny preset on the same shards: one table.

    OMP_NUM_THREADS=1 python -m benchmarks.conditioning demo/shards [--steps 600] [--seed 0] [--kinds a2 …] [--out DIR]

The golden difference is the largest absolute difference of sampled latents from SkyReels-V3's pipeline and from diffusers'
WanVACEPipeline, over the same tiny random networks (`difference` in benchmarks.conditioning_golden); for A2 and its released
sampler see tests/model_zoo/a2/test_pipeline.py. The losses are those of held-out clips over nine noise levels, before and after
training; the penalty is the relative increase with the references of other clips.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import conditioning_golden as golden
from benchmarks.tiny_training import read
from model_zoo.a2.checkpoint import CONDITIONINGS
from pipelines.statistics import student


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=list(CONDITIONINGS), choices=CONDITIONINGS)
    parser.add_argument("--out", type=Path, help="folder for the trainings, kept and resumed (default: temporary)")
    args = parser.parse_args()
    print(
        "conditioning  golden difference  loss at 0  at the end  wrong references  95 % over clips  CPU minutes",
        flush=True,
    )
    for kind in args.kinds:
        with tempfile.TemporaryDirectory() as folder:
            row = one(args.shards, (args.out or Path(folder)) / kind, kind, args.steps, args.seed)
        _, low, high = student(np.array(list(row["clips"].values())))
        print(
            f"{kind:12} {'in tests' if kind == 'a2' else f'{golden.difference(kind):.1e}':>18} {row['first']:10.3f}"
            f" {row['last']:11.4f} {row['gap']:+17.1%} {low:+8.1%} … {high:+.1%}"
            f" {row['minutes']:12.1f}",
            flush=True,
        )
        print("  by noise level: " + "  ".join(f"{(n + 1) / 10:.1f} {gap:+.1%}" for n, gap in enumerate(row["levels"])))


def one(shards: str, out: Path, kind: str, steps: int, seed: int) -> dict[str, Any]:
    """Train the tiny preset with a conditioning in a folder. Returns the losses and gaps of its log, and CPU minutes."""
    from pipelines.train.settings import PRESETS
    from pipelines.train.trainer import train

    encoding, settings = PRESETS["tiny"]
    schedule = {"steps": steps, "validate_every": steps, "checkpoint_interval": steps, "decay_steps": steps * 2 // 5}
    began = time.process_time()
    train(shards, out, replace(encoding, conditioning=kind), replace(settings, seed=seed, **schedule))
    minutes = (time.process_time() - began) / 60
    return {"minutes": minutes, **read([json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()])}


if __name__ == "__main__":
    main()
