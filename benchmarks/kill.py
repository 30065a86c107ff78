"""Kill -9 the driver and Ray workers during real runs and compare the output byte for byte.

    python -m benchmarks.kill [films] [join] [--kills 5] [--seed 0]

films: two of the demo films, killed at random moments. join: `retrieve` alone over 3,000 synthetic faces, killed while tiles of
its join are in flight. Each runs undisturbed; with the driver killed; on Ray with one worker, with two, and with two that are
killed repeatedly; without Ray also with two and eight workers. Prints the sha256 of all tars, or of the references, for each run.
The script starts its own Ray cluster.
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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from a2data.media import images
from a2data.records import ClipThumbs, Element, Match, Reference, Source
from a2data.store.tables import Store
from pipelines.films.demo import MOVIES, render
from pipelines.run.recipe import Recipe
from pipelines.triplets import triplets
from stages.retrieve import nearest as similarity

ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.getcwd(),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "180",
}
NOTED = "A2DATA_BENCHMARK_TILES"  # path of a file that grows by one byte with each started tile
FACES, TILE, SHARDS = 3000, 128, 12  # 576 tiles: on Ray, fewer end before one of their workers is found
# Titles of Ray processes that run a job, or a tile.
TITLES = {"films": b"ray::Worker.run", "join": b"ray::task_map"}


class Run:
    """An a2data command with its own work folder."""

    def __init__(self, root: Path, command: list[str]):
        self.root, self.log = root, root.with_suffix(".log")
        self.command = [sys.executable, "-m", "benchmarks.kill", "--command", *command]

    def start(self, **environment: str) -> subprocess.Popen:
        with self.log.open("a") as log:
            return subprocess.Popen(self.command, env=ENVIRONMENT | environment, stdout=log, stderr=log)

    def finish(self, process: subprocess.Popen) -> None:
        if process.wait() != 0:
            sys.exit(f"{self.root.name}: the run failed: {self.log.read_text()[-2000:]}")

    def report(self, what: str) -> str:
        """Print and return the sha256 over all tars or, without tars, over the references in order."""
        store = Store(self.root / "work")
        rows = [row for shard in store.shards("retrieve") for row in store.read("retrieve", shard, Reference)]
        packed = (self.root / "shards").exists()
        sha256 = tars_sha256(self.root / "shards") if packed else hashlib.sha256(repr(rows).encode()).hexdigest()
        print(f"  {what}: {len(rows)} references, sha256 {sha256[:16]}", flush=True)
        return sha256


def tars_sha256(folder: Path) -> str:
    """Return the sha256 over all tars of a folder, in the order of their names."""
    total = hashlib.sha256()
    for tar in sorted(folder.glob("*.tar")):
        total.update(tar.read_bytes())
    return total.hexdigest()


def over_films(root: Path, films: Path, *flags: str) -> Run:
    places = ["--work", str(root / "work"), "--out", str(root / "shards"), "--videos-per-shard", "1"]
    return Run(root, ["run", str(films / "manifest.csv"), *places, *flags])


def over_faces(root: Path, _: Path, *flags: str) -> Run:
    """Write the tables that retrieve reads: 1,500 people, each in two clips of two videos."""
    rng, store = np.random.default_rng(0), Store(root / "work")
    centres = rng.standard_normal((FACES // 2, 128), np.float32)
    x = np.repeat(centres, 2, axis=0) + 0.4 * rng.standard_normal((FACES, 128), np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    thumbs = rng.integers(0, 256, (FACES, 6 * 18 * 24), dtype=np.uint8)
    pixels = rng.integers(0, 256, (FACES, 8, 8, 4), dtype=np.uint8)
    times = [n / 15 for n in range(6)]
    for shard in range(SHARDS):
        mine = range(shard, FACES, SHARDS)
        clips = {n: f"{n:016x}-00000000" for n in mine}
        seen = [_face(clips[n], x[n], pixels[n]) for n in mine]
        store.write(
            "manifest", shard, Source, [Source(f"{n:016x}", f"{n}.mp4", "CC0-1.0", "", "", 1, "") for n in mine]
        )
        store.write(
            "segment", shard, ClipThumbs, [ClipThumbs(clips[n], f"{n:016x}", times, thumbs[n].tobytes()) for n in mine]
        )
        named = seen[::10]  # all faces are compared; these get references
        store.write("match", shard, Match, [Match(f.clip_id, f.element_id, "it", 0, 2, 1.0, 1.0) for f in named])
        store.write("faces", shard, Element, seen)
        for name in ("detect", "parse", "background", "ground"):
            store.write(name, shard, Element, [])
    Recipe().save(store)
    return Run(root, ["retrieve", str(root / "work"), "--tile", str(TILE), "--min-face", "0.6", *flags])


def _face(clip_id: str, vector: np.ndarray, rgba: np.ndarray) -> Element:
    png, box, mask = images.to_png(rgba), (2.0, 2.0, 10.0, 10.0), np.zeros((24, 32), bool)
    mask[2:10, 2:10] = True
    about = (f"{clip_id}/face/0", "face", "face", "", 2, box, 0.9, images.to_rle(mask), png, images.sha16(png))
    return Element(clip_id, *about, vector.tolist(), "dlib", 0.5, [0, 2], [box, box], [])


# -- kills -------------------------------------------------------------------------------------------------------------


def kill_drivers(run: Run, seconds: float, kills: int, rng: random.Random) -> None:
    """Kill the driver at random moments of a run of that length."""
    for _ in range(kills):
        process = run.start()
        time.sleep(rng.uniform(0.3, 1.7) * seconds / (kills + 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
    run.finish(run.start())


def kill_joins(run: Run, _: float, kills: int, rng: random.Random) -> None:
    """Kill the driver after a random number of started tiles: inside the join, on any machine."""
    for number in range(kills):
        note = run.root / f"tiles{number}"
        process, after = run.start(**{NOTED: str(note)}), rng.randrange(1, (FACES // TILE) ** 2)
        while process.poll() is None and not (note.exists() and note.stat().st_size >= after):
            time.sleep(0.01)
        if process.poll() is not None:
            sys.exit(f"{run.root.name}: ended before tile {after} was started: {run.log.read_text()[-2000:]}")
        process.send_signal(signal.SIGKILL)
        process.wait()
    run.finish(run.start())


def kill_workers(what: str, kills: int, rng: random.Random) -> Callable[[Run, float], None]:
    def kill(run: Run, seconds: float) -> None:
        process, killed = run.start(), 0
        while process.poll() is None and killed < kills:
            if busy := ray_processes(TITLES[what]):
                os.kill(rng.choice(busy), signal.SIGKILL)
                killed += 1
                time.sleep(rng.uniform(0.3, 1.7) * seconds / (kills + 1) / 2)
            time.sleep(0.02)
        run.finish(process)
        if not killed:
            sys.exit(f"{run.root.name}: the run ended before a worker was killed")
        blamed = failed_units(Store(run.root / "work"))
        print(
            f"  {killed} workers killed; units that failed because they were in flight three times, and are retried: {blamed}"
        )
        if blamed:
            retry = Run(run.root, ["retry", str(run.root / "work")])
            retry.finish(retry.start())
            run.finish(run.start())

    return kill


def failed_units(store: Store) -> int:
    """Return the number of units of all stages that failed, or were skipped since they failed in another."""
    names = [stage.name() for stage in triplets()]
    footers = (store.footer(name, shard) for name in names for shard in store.shards(name))
    return sum(len(footer.failed) + len(footer.skipped) for footer in footers if footer)


def ray_processes(title: bytes) -> list[int]:
    """Return the ids of this script's Ray processes with that title."""
    parent_of = parents()
    return [
        pid for pid in parent_of if command_line(pid).startswith(title) and os.getpid() in ancestors(pid, parent_of)
    ]


def parents() -> dict[int, int]:
    """Return the parent's process id of every process of this machine, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # ended meanwhile
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def command_line(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def ancestors(pid: int, parent_of: dict[int, int]) -> Iterator[int]:
    while pid in parent_of:
        pid = parent_of[pid]
        yield pid


# -- the runs ----------------------------------------------------------------------------------------------------------


def compare(what: str, root: Path, films: Path, address: str, kills: int, seed: int) -> bool:
    """Run everything over the films or the faces; return whether all results are identical."""
    rng = random.Random(seed)
    make: Callable[..., Run] = {"films": over_films, "join": over_faces}[what]
    drivers = {"films": kill_drivers, "join": kill_joins}[what]
    print(f"{what}:", flush=True)
    calm = make(root / what / "undisturbed", films)
    calm.root.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    calm.finish(calm.start())
    seconds = time.perf_counter() - began
    expected = calm.report("undisturbed")
    ray = ("--ray", address, "--cpus-per-worker", "0.5")
    plain: Callable[[Run, float], None] = lambda run, _: run.finish(run.start())  # noqa: E731
    runs: list[tuple[str, tuple[str, ...], Callable[[Run, float], None]]] = [
        ("2 workers", ("--workers", "2"), plain),
        ("8 workers", ("--workers", "8"), plain),
        (f"driver killed {kills} times", (), lambda run, s: drivers(run, s, kills, rng)),
        ("ray, 1 worker", (*ray, "--workers", "1"), plain),
        ("ray, 2 workers", (*ray, "--workers", "2"), plain),
        (f"ray, 2 workers, {kills} to be killed", (*ray, "--workers", "2"), kill_workers(what, kills, rng)),
    ]
    same = True
    for name, flags, disturb in runs:
        folder = root / what / re.sub(r"\W+", "_", name)
        folder.mkdir(parents=True)
        run = make(folder, films, *flags)
        disturb(run, seconds)
        same &= run.report(name) == expected
    return same


@contextmanager
def cluster() -> Iterator[str]:
    """Start a Ray cluster and yield its address, so that only this script's workers are killed."""
    os.environ |= ENVIRONMENT  # a worker imports what the driver does
    from ray.cluster_utils import Cluster

    own = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        yield own.address
    finally:
        own.shutdown()


def a2data(argv: list[str]) -> int:
    from pipelines.cli.main import main as command

    return command(argv)


def noted(work: Callable[..., Any], path: str) -> Callable[..., Any]:
    """Wrap a function to append a byte to a file at each call."""

    def call(*args: Any, **how: Any) -> Any:
        with open(path, "ab") as file:
            file.write(b".")
        return work(*args, **how)

    return call


if os.environ.get(NOTED):  # in the driver, and in its children, which import this module too
    similarity.nearest = noted(similarity.nearest, os.environ[NOTED])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["films", "join", []])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, cluster() as address:
        root, whats = Path(folder), args.what or ["films", "join"]
        films = render(root / "films", movies=MOVIES[:2]).parent if "films" in whats else root
        same = [compare(what, root, films, address, args.kills, args.seed) for what in whats]
    print("all identical" if all(same) else "NOT identical")
    sys.exit(not all(same))


if __name__ == "__main__":
    sys.exit(a2data(sys.argv[2:])) if sys.argv[1:2] == ["--command"] else main()
