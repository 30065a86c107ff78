"""Start-up of the command line in CPU seconds, against another checkout of the project.

    python -m benchmarks.startup OTHER [WORK]

OTHER is the folder of the other checkout; WORK a work folder for `a2data status` (skipped if it is not given). Each pair starts a
process of either checkout, in alternating order. Prints the medians and the ratio of this checkout to the other.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]
PAIRS = 11


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other", metavar="OTHER", type=Path)
    parser.add_argument("work", metavar="WORK", type=Path, nargs="?")
    args = parser.parse_args()
    cli = ["-m", "pipelines.cli"]
    commands = {"import a2data": ["-c", "import a2data"], "a2data --help": [*cli, "--help"]}
    commands |= {f"a2data {name} --help": [*cli, name, "--help"] for name in ("detect", "train", "sample")}
    if args.work:
        commands["a2data status"] = [*cli, "status", str(args.work.resolve())]
    print(f"{'CPU seconds, median of ' + str(PAIRS):28} {'here':>7} {'other':>7} {'ratio':>7}")
    for name, words in commands.items():
        here, other = pairs(words, args.other.resolve())
        print(f"{name:28} {here:7.3f} {other:7.3f} {here / other:7.2f}", flush=True)


def pairs(words: list[str], other: Path) -> tuple[float, float]:
    """Return the median CPU seconds of a command in this checkout and in the other."""
    cpu: dict[Path, list[float]] = {HERE: [], other: []}
    for number in range(PAIRS + 1):
        for folder in (HERE, other) if number % 2 else (other, HERE):
            cpu[folder].append(cpu_seconds(words, folder))
    # the first pair compiles the modules
    return statistics.median(cpu[HERE][1:]), statistics.median(cpu[other][1:])


def cpu_seconds(words: list[str], folder: Path) -> float:
    """Return the user and system seconds of one process. Raises CalledProcessError if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
