"""The arms of A2's ablation (arXiv 2504.02436, Table 2), trained with the tiny preset from the same seed, data and start.

    OMP_NUM_THREADS=1 python -m benchmarks.ablation demo/shards [--steps 60] [--seed 0] [--arms released cross-2] [--out DIR]

The first arm is the released model's: references combined before the VAE, each repeated for four frames, cross-attention of every
layer trained, always several references. Each other arm changes one thing. The script prints the held-out loss of the EMA weights
before and after training (over the frames that do not show a reference, at nine noise levels), its relative increase with
references of other held-out clips, and that increase at the highest noise level. A network of a million parameters, trained for a
hundred steps, does not predict how one of 14 billion behaves: the script shows that every arm is one setting, and trains.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.tiny_training import read
from pipelines.train.settings import PRESETS, Settings
from stages.encode.settings import Encoding

SINGLES = {"singles": True}  # also encode single references
ARMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # changed encoding settings, changed training settings
    "released": (SINGLES, {}),
    "after the VAE": ({"reference_order": "after"}, {}),
    "no repeat": ({"repeat_reference_frames": False}, {}),
    "cross-2": (SINGLES, {"trainable": "cross-2"}),
    "full": (SINGLES, {"trainable": "full"}),
    "single : multi 1 : 1": (SINGLES, {"single_reference_prob": 0.5}),
    "single : multi 1 : 5": (SINGLES, {"single_reference_prob": 1 / 6}),
    "single : multi 1 : 0": (SINGLES, {"single_reference_prob": 1.0}),
}


def settings_of(arm: str, steps: int, seed: int) -> tuple[Encoding, Settings]:
    """Return the tiny preset with the changes of an arm. Cross-attention is trained unless the arm changes it."""
    encoding, settings = PRESETS["tiny"]
    encoding_changes, training_changes = ARMS[arm]
    common = {
        "steps": steps,
        "seed": seed,
        "trainable": "cross-attention",
        "validate_every": steps,
        "checkpoint_interval": steps,
    }
    schedule = {"warmup_steps": steps // 8, "decay_steps": steps // 2}
    return replace(encoding, **encoding_changes), replace(settings, **common | schedule | training_changes)


def one(shards: str, out: Path, arm: str, steps: int, seed: int) -> dict[str, Any]:
    """Train an arm in out/ARM. Reuse the encoders of earlier arms, and their samples if the encoding is the same."""
    from pipelines.train.trainer import train

    encoding, settings = settings_of(arm, steps, seed)
    mine = out / arm.replace(" ", "-").replace(":", "to")
    for other in sorted(out.glob("*/model")) if not mine.exists() else []:
        same = json.loads((other.parent / "encoding.json").read_text()) == str(encoding)
        for part in ("start", "encoded") if same else ("start",):
            shutil.copytree(other.parent / part, mine / part, dirs_exist_ok=True)
    began = time.process_time()
    train(shards, mine, encoding, settings)
    (mine / "encoding.json").write_text(json.dumps(str(encoding)))
    lines = [json.loads(line) for line in (mine / "log.jsonl").read_text().splitlines()]
    return {"arm": arm, "minutes": (time.process_time() - began) / 60, **read(lines)}


def table(rows: list[dict[str, Any]]) -> str:
    """Return a table of the arms, with losses relative to the first."""
    lines = ["arm                    loss at 0  at the end  to the first     gap  gap at 0.9  CPU minutes"]
    for row in rows:
        lines.append(
            f"{row['arm']:22} {row['first']:9.4f} {row['last']:11.4f} {row['last'] / rows[0]['last'] - 1:+13.1%}"
            f" {row['gap']:+7.1%} {row['levels'][-1]:+11.1%} {row['minutes']:12.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [one(args.shards, args.out or Path(folder), arm, args.steps, args.seed) for arm in args.arms]
    print(table(rows))


if __name__ == "__main__":
    main()
