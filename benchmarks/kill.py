"""Kill -9 the driver, and Ray workers, at random moments of a real run: are the shards the same, byte for byte?

    python -m benchmarks.kill [--kills 5] [--seed 0]

Over two of the demo films: one run that nobody disturbs; one whose driver is killed; Ray with one worker, with two, and with two
of which one is killed again and again. Prints the sha256 of all tars together for each, and how many jobs were done.
"""

import argparse
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.demo_films import MOVIES, render

ENVIRONMENT = os.environ | {"PYTHONPATH": os.getcwd(), "RAY_USAGE_STATS_ENABLED": "0"}


class Run:
    """A run of the command line over the films, into a folder of its own."""

    def __init__(self, films: Path, root: Path, *flags: str):
        self.root, self.jobs = root, 0
        places = ["--work", str(root / "work"), "--out", str(root / "shards"), "--videos-per-shard", "1"]
        self.command = [sys.executable, "-m", "pipelines.cli", "run", str(films / "manifest.csv"), *places, *flags]

    def start(self) -> subprocess.Popen:
        log = (self.root.with_suffix(".log")).open("a")
        return subprocess.Popen(self.command, env=ENVIRONMENT, stdout=log, stderr=log)

    def finish(self, process: subprocess.Popen) -> None:
        if process.wait() != 0:
            sys.exit(f"{self.root.name}: the run failed, see {self.root.with_suffix('.log')}")

    def report(self, what: str) -> str:
        """The sha256 over all tars, in order of their names; printed with the number of jobs that were done."""
        total = hashlib.sha256()
        for tar in sorted((self.root / "shards").glob("*.tar")):
            total.update(tar.read_bytes())
        jobs = len(re.findall(r"^\[ *[\d.]+ s\] .* done, ", self.root.with_suffix(".log").read_text(), re.MULTILINE))
        print(f"{what}: {jobs} jobs done, shards {total.hexdigest()[:16]}", flush=True)
        return total.hexdigest()


def moments(seconds: float, count: int, rng: random.Random) -> Iterator[float]:
    """Pauses between kills, so that they fall anywhere in a run of that length."""
    for _ in range(count):
        yield rng.uniform(0.3, 1.7) * seconds / (count + 1)


def ray_workers() -> list[int]:
    """Process ids of Ray actors that have a job in hand."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::Worker.do"):
                found.append(int(entry.name))
    return found


def kill_drivers(run: Run, pauses: Iterator[float]) -> None:
    for pause in pauses:
        process = run.start()
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
    run.finish(run.start())


def kill_workers(run: Run, pauses: Iterator[float]) -> None:
    process = run.start()
    for pause in pauses:
        time.sleep(pause)
        while process.poll() is None and not (workers := ray_workers()):
            time.sleep(0.05)
        if process.poll() is None:
            os.kill(min(workers), signal.SIGKILL)
    run.finish(process)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        films = render(root / "films", movies=MOVIES[:2]).parent
        began = time.perf_counter()
        calm = Run(films, root / "undisturbed")
        calm.finish(calm.start())
        seconds = time.perf_counter() - began
        expected = calm.report("undisturbed")
        same = True
        ray = ("--ray", "auto", "--cpus-per-worker", "1")
        disturbed: list[tuple[str, tuple[str, ...], Callable[[Run], None]]] = [
            (f"driver killed {args.kills} times", (), lambda r: kill_drivers(r, moments(seconds, args.kills, rng))),
            ("ray, 1 worker", (*ray, "--workers", "1"), lambda r: r.finish(r.start())),
            ("ray, 2 workers", (*ray, "--workers", "2"), lambda r: r.finish(r.start())),
            (
                f"ray, 2 workers, one killed {args.kills} times",
                (*ray, "--workers", "2"),
                lambda r: kill_workers(r, moments(seconds / 2, args.kills, rng)),
            ),
        ]
        for what, flags, disturb in disturbed:
            run = Run(films, root / what.replace(" ", "_").replace(",", ""), *flags)
            disturb(run)
            same &= run.report(what) == expected
        print("all the same" if same else "NOT the same")
        sys.exit(not same)


if __name__ == "__main__":
    main()
