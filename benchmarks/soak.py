"""A long run of many small clips through the whole `builtin` pipeline with two workers, killed at random moments and resumed.

    OMP_NUM_THREADS=1 python -m benchmarks.soak FOLDER [--clips 2000] [--kills 10] [--shots 20] [--seed 0]

Films of 16 frames a shot at 384 x 216 are rendered into FOLDER/films, once; earlier runs in FOLDER are removed. A fifth of the
films ("part") runs undisturbed, then again with a fifth of the kills; then all films run in that work folder. Kills are SIGKILL
of the driver or of a worker, at random counts of finished parts.

Prints, by stage, the clips per CPU second in each quarter of its shards; by quarter of the CPU time the largest resident memory
of the driver and of a worker; the memory after each shard of `detect`; then the rows lost, and whether the shards of the part are
those of the undisturbed run, byte for byte. CPU seconds are those of all processes of the run, sampled from /proc. Exits 1 if a
clip is lost or a shard differs.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from a2data.media.video import encode
from a2data.store.tables import Store
from benchmarks.kill import Run, ancestors, command_line, failed_units, parents, tars_sha256
from pipelines.films.demo import MOVIES, frames
from pipelines.films.demo_script import Movie
from pipelines.triplets import triplets

FRAMES, FPS, SIZE = 16, 15, (384, 216)
SCRIPT = [shot for movie in MOVIES for shot in movie.shots]  # of a film, in another order in each
TIMED = (
    "segment",
    "score",
    "detect",
    "pack",
)  # stages whose throughput is shown; with "detect" those that share its jobs
EVERY_S = 0.5
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def film(path: Path, number: int, count: int) -> None:
    """Render a film of `count` shots, unless it is there. Same arguments: same bytes."""
    if path.exists():
        return
    shots = [replace(shot, seconds=FRAMES / FPS, then="cut") for shot in SCRIPT]
    random.Random(number).shuffle(shots)
    del shots[count:]
    data = encode(frames(Movie(path.name, FPS, tuple(shots)), 100 * number, SIZE, []), FPS, crf=22)
    path.with_suffix(".part").write_bytes(data)
    path.with_suffix(".part").rename(path)


class Sample(NamedTuple):
    """What was seen at one moment: CPU seconds since the start, memory in MB, and the parts that each stage has finished."""

    cpu_s: float
    driver_mb: float
    worker_mb: float
    parts: dict[str, int]


@dataclass
class Watch:
    """Samples of all processes of the runs, over kills and restarts."""

    work: Path
    samples: list[Sample] = field(default_factory=list)
    ticks: dict[tuple[int, str], int] = field(default_factory=dict)  # process id and start time -> CPU ticks last seen

    def look(self, driver: int) -> list[int]:
        """Add a sample; return the process ids of the workers."""
        parent_of = parents()
        workers, memory = [], {driver: 0.0}
        for pid in parent_of:
            if driver not in (pid, *ancestors(pid, parent_of)):
                continue
            with suppress(OSError):  # ended meanwhile
                told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                self.ticks[pid, told[19]] = int(told[11]) + int(told[12])
                memory[pid] = int(told[21]) * PAGE / 1e6
                if pid != driver and b"spawn_main" in command_line(pid):
                    workers.append(pid)
        largest = max((memory.get(pid, 0.0) for pid in workers), default=0.0)
        parts = {stage.name(): self._parts(stage.name()) for stage in triplets()}
        self.samples.append(Sample(sum(self.ticks.values()) / TICKS, memory[driver], largest, parts))
        return workers

    def _parts(self, stage: str) -> int:
        with suppress(FileNotFoundError):
            return sum(name.endswith(".parquet") for name in os.listdir(self.work / stage))
        return 0


def run_and_kill(run: Run, watch: Watch, goals: list[int], rng: random.Random) -> None:
    """Run to the end. When the stages together have finished as many parts as a goal says, kill the driver or a worker."""
    goals = sorted(goals)
    process = run.start()
    while True:
        time.sleep(EVERY_S)
        if process.poll() is not None:
            if process.returncode not in (0, -signal.SIGKILL):
                sys.exit(f"the run failed: {run.log.read_text()[-2000:]}")
            if process.returncode == 0:
                break
            process = run.start()
            continue
        workers = watch.look(process.pid)
        if goals and sum(watch.samples[-1].parts.values()) >= goals[0] and workers:
            goals.pop(0)
            time.sleep(rng.uniform(0, 3))
            victim = rng.choice([process.pid, *workers])
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            parts = watch.samples[-1].parts
            stage = next((name for name, count in parts.items() if count < parts["ingest"]), "pack")
            print(
                f"killed the {'driver' if victim == process.pid else 'worker'} in {stage}, part {parts[stage]}",
                flush=True,
            )
    if goals:
        print(f"{len(goals)} kills were not reached", flush=True)


def throughput(samples: list[Sample], stage: str, clips: int) -> list[float]:
    """Return the clips per CPU second of a stage, in each quarter of the time from its first finished part to its last.

    Stages run one after the other over all shards, so that this time is almost its own. clips: of a part.
    """
    at: dict[int, float] = {}  # parts done -> CPU seconds
    for sample in samples:
        at.setdefault(sample.parts[stage], sample.cpu_s)
    seen = sorted(at)[1:]  # the first is before any is done
    marks = [seen[(len(seen) - 1) * n // 4] for n in range(5)]
    return [(b - a) * clips / max(at[b] - at[a], 1e-9) for a, b in pairwise(marks)]


def missing(calm: Store, soaked: Store) -> int:
    """Return the number of rows that an undisturbed run has and the other lacks."""
    rows = {
        (stage.name(), shard): (calm.footer(stage.name(), shard), soaked.footer(stage.name(), shard))
        for stage in triplets()
        for shard in calm.shards(stage.name())
    }
    return sum(max(0, a.rows - (b.rows if b else 0)) for a, b in rows.values() if a)


def over(root: Path, films: list[Path]) -> Run:
    """Return the command over these films, one a shard, with two workers."""
    root.mkdir(exist_ok=True)
    run = Run(root, [])
    places = ["--work", str(root / "work"), "--out", str(root / "shards"), "--videos-per-shard", "1", "--workers", "2"]
    run.command = [sys.executable, "-m", "pipelines.cli", "run", *map(str, films), *places]
    return run


def report(samples: list[Sample], shots: int) -> None:
    print(f"{'clips per CPU s, quarters':26} " + " ".join(f"{n:>7}" for n in range(1, 5)))
    for stage in TIMED:
        print(f"  {stage:24} " + " ".join(f"{value:7.2f}" for value in throughput(samples, stage, shots)))
    quarter = [min(3, int(4 * sample.cpu_s / samples[-1].cpu_s)) for sample in samples]
    for what in ("driver_mb", "worker_mb"):
        largest = [
            max((getattr(s, what) for s, q in zip(samples, quarter, strict=True) if q == n), default=0)
            for n in range(4)
        ]
        print(f"{what.replace('_mb', ', largest MB'):26} " + " ".join(f"{value:7.0f}" for value in largest))
    after = {sample.parts["detect"]: sample for sample in samples}
    shown = sorted(after)[:: max(1, len(after) // 16)]
    for what in ("driver_mb", "worker_mb"):
        print(
            f"{what.replace('_mb', ', MB')} by shards of detect: "
            + ", ".join(f"{n}: {getattr(after[n], what):.0f}" for n in shown)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shots", type=int, default=20, help="of a film, at most 20")
    args = parser.parse_args()
    rng, root = random.Random(args.seed), args.folder
    films = [root / "films" / f"{args.shots}-{n:04d}.mp4" for n in range(max(3, args.clips // args.shots))]
    films[0].parent.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(films):
        film(path, number, args.shots)
    for earlier in ("undisturbed", "soaked"):
        shutil.rmtree(root / earlier, ignore_errors=True)
    part = films[: max(2, len(films) // 5)]
    calm = over(root / "undisturbed", part)
    calm.finish(calm.start())
    soaked, watch = over(root / "soaked", part), Watch(root / "soaked" / "work")
    stages, first_kills = len(triplets()), max(1, args.kills // 5)
    goals = [rng.randrange(stages * len(part)) for _ in range(first_kills)]
    began = time.perf_counter()
    run_and_kill(soaked, watch, goals, rng)
    same = tars_sha256(root / "soaked" / "shards") == tars_sha256(root / "undisturbed" / "shards")
    lost = missing(Store(calm.root / "work"), Store(soaked.root / "work"))
    whole, rest = over(root / "soaked", films), Watch(watch.work)
    goals = [rng.randrange(stages * len(part), stages * len(films)) for _ in range(args.kills - first_kills)]
    run_and_kill(whole, rest, goals, rng)
    seconds = time.perf_counter() - began
    report(rest.samples, args.shots)
    store = Store(rest.work)
    clips = sum(store.footer("segment", shard).rows for shard in store.shards("segment"))
    lost += failed_units(store) + args.shots * len(films) - clips
    cpu_s = watch.samples[-1].cpu_s + rest.samples[-1].cpu_s
    print(
        f"{clips} clips in {cpu_s:.0f} CPU s and {seconds:.0f} s: {cpu_s / clips:.2f} CPU s a clip; rows lost: {lost}"
    )
    print(f"shards of the first {len(part)} films: {'the same' if same else 'OTHERS'} as undisturbed")
    sys.exit(not same or lost > 0)


if __name__ == "__main__":
    main()
