"""Kill the driver or its workers at random moments of a real run over rendered films: are the shards the same, byte for byte?"""

import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.table import Row
from benchmarks.kill import Run, command_line, over_films, parents
from pipelines.films.demo import MOVIES, render


def children(process: subprocess.Popen) -> list[int]:
    """Return the process ids of the worker processes of a driver."""
    found = [pid for pid, parent in parents().items() if parent == process.pid]
    return [pid for pid in found if b"spawn_main" in command_line(pid)]


def interrupt_driver(run: Run, seconds: float, kills: int, signum: int, rng: random.Random) -> int:
    """Signal the driver `kills` times, at moments that fall anywhere in what is left of the run; return how often it was hit."""
    hit = 0
    for _ in range(kills):
        process = run.start()
        time.sleep(rng.uniform(0.3, 1.7) * seconds / (kills + 1))
        if process.poll() is None:
            process.send_signal(signum)
            hit += 1
        process.wait()
    run.finish(run.start())
    return hit


def kill_children(run: Run, seconds: float, kills: int, rng: random.Random) -> int:
    """Kill `kills` worker processes, in as many runs as that takes; return how many were killed.

    A unit that was in work in three kills is reported as failed: `retry` takes it up again.
    """
    killed, retry, failed = 0, Run(run.root, ["retry", str(run.root / "work")]), False
    while killed < kills:
        process = retry.start() if failed else run.start()
        while process.poll() is None and killed < kills:
            time.sleep(rng.uniform(0.3, 1.7) * seconds / (kills + 1))
            workers = children(process)
            if process.poll() is None and workers:
                os.kill(rng.choice(workers), signal.SIGKILL)
                killed += 1
        failed = process.wait() != 0
    retry.finish(retry.start())
    run.finish(run.start())
    return killed


def finished_run(root: Path) -> tuple[Run, Path, float]:
    """Render two films and run the whole pipeline over them. Returns the run, the folder of the films and the seconds it took."""
    films = render(root / "films", movies=MOVIES[:2]).parent
    run = over_films(root / "undisturbed", films, "--workers", "2")
    run.root.mkdir()
    began = time.perf_counter()
    run.finish(run.start())
    return run, films, time.perf_counter() - began


def kills(root: Path, calm: Run, films: Path, seconds: float, count: int, seed: int) -> Iterator[Row]:
    """Run the pipeline over the films of a finished run again, with `count` kills in all, and compare. One row for each kind."""
    rng = random.Random(seed)
    expected = calm.report("undisturbed")
    shares = (("driver, SIGKILL", 0.4), ("worker, SIGKILL", 0.4), ("driver, SIGTERM", 0.1), ("driver, SIGINT", 0.1))
    for kind, share in shares:
        number = math.ceil(count * share)
        run = over_films(root / kind.replace(", ", "-"), films, "--workers", "2")
        run.root.mkdir(parents=True)
        if kind.startswith("worker"):
            hit = kill_children(run, seconds, number, rng)
        else:
            hit = interrupt_driver(run, seconds, number, getattr(signal, kind.rpartition(" ")[2]), rng)
        same = run.report(kind) == expected
        yield Row(f"kill: {kind}", hit, hit if same else 0, "same sha256" if same else "OTHER sha256")
