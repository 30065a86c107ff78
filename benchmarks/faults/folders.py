"""Damage a finished work folder or its shards: do the commands still work, and does the next run mend it to the same shards?"""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults.damage import flip_bits
from benchmarks.faults.table import Row
from benchmarks.kill import ENVIRONMENT, Run, tars_sha256

STAGES = (
    *("ingest", "segment", "score", "select", "detect", "faces", "parse"),
    *("background", "caption", "match", "retrieve", "pack"),
)
QUERIES = ("status", "failures", "report")  # must work on a damaged folder

Damage = Callable[[Path, random.Random], None]


def first(root: Path, pattern: str) -> Path:
    """Return the first file below `root` that matches."""
    return min(root.glob(pattern))


def truncate(path: str) -> Damage:
    """Cut a file short."""

    def damage(root: Path, rng: random.Random) -> None:
        file = first(root, path)
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * rng.uniform(0.1, 0.9))])

    return damage


def alter(path: str) -> Damage:
    """Flip bits in the first three quarters of a file: pages and pixels, not a table's footer."""

    def damage(root: Path, rng: random.Random) -> None:
        file = first(root, path)
        data = file.read_bytes()
        middle = len(data) * 3 // 4
        file.write_bytes(flip_bits(data[:middle], rng) + data[middle:])

    return damage


def empty(path: str) -> Damage:
    """Leave no byte of a file."""
    return lambda root, _: (root / path).write_bytes(b"") and None


def remove(path: str) -> Damage:
    """Remove a file."""
    return lambda root, _: first(root, path).unlink()


def litter(path: str, content: bytes) -> Damage:
    """Leave a file that no run wrote."""
    return lambda root, _: (root / path).write_bytes(content) and None


def cases() -> dict[str, Damage]:
    """Return every damage by what it is called."""
    found: dict[str, Damage] = {}
    for stage in STAGES:
        found[f"{stage} part truncated"] = truncate(f"work/{stage}/00000.parquet")
    for stage in ("segment", "detect", "retrieve"):
        found[f"{stage} part altered"] = alter(f"work/{stage}/00000.parquet")
        found[f"{stage} part empty"] = empty(f"work/{stage}/00000.parquet")
    found |= {
        "tar truncated": truncate("shards/*.tar"),
        "tar altered": alter("shards/*.tar"),
        "tar removed": remove("shards/*.tar"),
        "index truncated": truncate("shards/index.parquet"),
        "list of sources truncated": truncate("work/manifest/00000.parquet"),
        "list of sources altered": alter("work/manifest/00000.parquet"),
        "manifest truncated": truncate("shards/manifest.json"),
        "manifest of other types": litter("shards/manifest.json", b'{"shards": [{"name": 7}], "index": 3}'),
        "progress note of noise": litter("work/detect/00000.doing", b"\xff{"),
        "temporary file left": litter("work/detect/00000.parquet.tmp", b"half"),
    }
    return found


def a2data(*argv: str) -> subprocess.CompletedProcess:
    """Run a command of a2data in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *argv], env=ENVIRONMENT, capture_output=True, text=True
    )


def mended(run: Run, expected: str) -> str:
    """Run the queries and then the run on a damaged folder; return "" if all went well, else what did not."""
    work = str(run.root / "work")
    for query in QUERIES:
        done = a2data(query, work)
        if done.returncode or "Traceback" in done.stderr:
            return f"{query}: exit {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
    done = a2data(*run.command[4:], "--quiet", "--verify")
    if done.returncode or "Traceback" in done.stderr:
        return f"run: exit {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
    return "" if tars_sha256(run.root / "shards") == expected else "other shards"


def damaged_folders(root: Path, run: Run, seed: int) -> Iterator[Row]:
    """Damage a finished run in each way, mend it and compare. One row for each damage. The run is whole again afterwards."""
    rng = random.Random(seed)
    expected = tars_sha256(run.root / "shards")
    shutil.copytree(run.root, root / "whole")
    for name, damage in cases().items():
        damage(run.root, rng)
        wrong = mended(run, expected)
        yield Row(f"folder: {name}", 1, int(not wrong), wrong or "mended")
        # in place: a copied work folder would be another owner of the shards
        shutil.rmtree(run.root)
        shutil.copytree(root / "whole", run.root)
