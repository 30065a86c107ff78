"""CPU seconds per clip of each stage of a profile, here and in another checkout, from one run over films.

    [A2DATA_CORPUS=<folder>] python -m benchmarks.stage_cost [FILM …] [--against CHECKOUT] [--rounds 1] [--profile builtin]

Each round runs both checkouts, one after the other, each in a process of its own with one thread, in an empty work folder; the
medians over the rounds are printed. A stage's seconds are those in its footers, measured by the CPU clock of the process: loading
models is not counted. The default films are three of the corpus.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace

HERE = Path(__file__).parents[1]
CORPUS = Path(os.environ.get("A2DATA_CORPUS", HERE.parent / "shared" / "corpus"))
FILMS = ("derived_asl_hardcuts.mp4", "intel_head-pose-face-detection-female-and-male.mp4", "sam2_01_dog.mp4")


def child(films: list[str], profile: str) -> dict[str, float]:
    """Return the CPU seconds of each stage, and "clips", of the checkout that Python imports."""
    from a2data import job
    from a2data.store.tables import Store
    from pipelines.cli.main import main as a2data
    from pipelines.triplets import triplets

    job.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as work:
        if a2data(["run", *films, "--work", work, "--profile", profile, "--quiet", "--in-process"]) != 0:
            sys.exit("the run failed")
        store = Store(work)
        footers = {
            stage.name(): [f for n in store.shards(stage.name()) if (f := store.footer(stage.name(), n)) is not None]
            for stage in triplets(profile)
        }
        seconds = {name: sum(f.seconds for f in found) for name, found in footers.items()}
        return seconds | {"clips": sum(f.rows for f in footers["segment"])}


def measured(checkout: Path, films: list[str], profile: str) -> dict[str, float]:
    """Return the result of `child` for a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    command = [sys.executable, "-P", __file__, *films, "--profile", profile, "--child"]
    done = subprocess.run(command, env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def table(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> list[str]:
    """Return a line per stage: CPU seconds per clip of the other checkout, of this one, and the ratio."""
    per_clip = [
        {name: median(r.get(name, 0.0) / r["clips"] for r in runs) for name in (*ours[0], "all")} if runs else {}
        for runs in ([r | {"all": sum(v for k, v in r.items() if k != "clips")} for r in one] for one in (ours, theirs))
    ]
    lines = [f"{'CPU s per clip':16} {'before':>8} {'now':>8} {'ratio':>6}   ({ours[0]['clips']:g} clips)"]
    for name, now in per_clip[0].items():
        before = per_clip[1].get(name)
        if name != "clips":
            ratio = f"{before / now:6.2f}" if before is not None and now else f"{'-':>6}"
            lines.append(f"{name:16} {'-' if before is None else f'{before:.3f}':>8} {now:8.3f} {ratio}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", nargs="*", default=[str(CORPUS / "video" / name) for name in FILMS])
    parser.add_argument("--against", type=Path, help="folder of another checkout")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--profile", default="builtin")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.films, args.profile)))
        return
    ours, theirs = [], []
    for _ in range(args.rounds):
        if args.against:
            theirs.append(measured(args.against.resolve(), args.films, args.profile))
        ours.append(measured(HERE, args.films, args.profile))
    print("\n".join(table(ours, theirs)))


if __name__ == "__main__":
    main()
