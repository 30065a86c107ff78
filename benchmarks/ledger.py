"""Cost of knowing what is done: `a2data status` and a run with nothing to do, on stub folders of the 13 stages.

    python -m benchmarks.ledger [--shards 100,1000,10000] [--from FOLDER] [--against CHECKOUT]

The folders hold one real Parquet part for each stage and shard, written by the store, with few rows; those of the stages per clip
and per video are empty. Prints, for each number of shards, the CPU seconds, peak memory, and file operations of both commands:
the first status (which reads a folder without ledgers), a second one, and the run. --from keeps the folders for the next call.
--against measures the code of another checkout too, on copies made by it.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

CALLS = {"open_input_file": "opens", "open_input_stream": "opens", "get_file_info": "listings"}


class Counting:
    """A file system that counts what is asked of it."""

    def __init__(self, real, counts: Counter):
        self.real, self.counts = real, counts

    def __getattr__(self, name: str):
        if name in CALLS:
            self.counts[CALLS[name]] += 1
        return getattr(self.real, name)


def make(root: str, shards: int) -> None:
    """Write the folder: a manifest of one source that cannot be read for each shard, and the parts that follow from it."""
    from a2data.records import Source
    from a2data.store.tables import Store
    from pipelines.run import outputs, ownership
    from pipelines.run.recipe import Recipe
    from pipelines.triplets import triplets

    store, recipe = Store(root), Recipe()
    recipe.save(store)
    out = recipe.folder(store)
    stages = recipe.apply(triplets(recipe.profile), store)
    parts: dict[tuple, bytes] = {}
    for shard in range(shards):
        store.write("manifest", shard, Source, [Source(f"{shard:016x}", f"{shard}.mp4", "", "", "", 1, "")])
    # all but the manifest are equal for every shard with equal inputs: write them once with each key
    digests = {("manifest", shard): store.footer("manifest", shard).digest for shard in range(shards)}
    for stage in stages:
        for job in [tuple(range(shards))] if stage.per == "all" else [(shard,) for shard in range(shards)]:
            inputs = {}
            for name in stage.reads:
                found = [digests[name, shard] for shard in job]
                inputs[name] = found[0] if len(found) == 1 else _combined(found)
            at = stage.name(), *sorted(inputs.items())
            for shard in job:
                name = f"{shard:05d}.parquet"
                if at in parts:
                    Path(root, stage.name(), name).write_bytes(parts[at])
                else:
                    with store.create(stage.name(), stage.writes, shard) as part:
                        part.footer.num_inputs = 1
                        part.footer.settings = {}
                        part.commit(stage, inputs)
                    parts[at] = Path(root, stage.name(), name).read_bytes()
                    parts["digest", *at] = part.footer.digest
                digests[stage.name(), shard] = parts["digest", *at]
    with ownership.claim(store, out) as owner:
        if hasattr(outputs, "Ledger"):
            from a2data.store.ledger import Ledger

            outputs.write_index(Ledger(store), out, recipe.profile, stages, owner)
            for file in Path(root).glob("*/parts.ledger"):
                file.unlink()
        else:
            outputs.write_index(store, out, recipe.profile, stages, owner)
    Path(root, "report.html").write_text("newer than the tables")


def _combined(digests: list[str]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]


def measure(argv: list[str]) -> None:
    """Run a command in this process and print its cost as JSON on the last line."""
    from a2data.store.folder import Folder
    from pipelines.cli.main import main

    counts: Counter = Counter()
    init = Folder.__init__

    def counting(self, root):
        init(self, root)
        self.fs = Counting(self.fs, counts)

    Folder.__init__ = counting  # type: ignore[method-assign]
    before, began = time.process_time(), time.perf_counter()
    code = main(argv)
    print(
        json.dumps(
            {
                "code": code,
                "cpu_s": time.process_time() - before,
                "wall_s": time.perf_counter() - began,
                "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                **counts,
            }
        )
    )


def child(code: str, *args: str) -> dict:
    """Run this script in a process with the code of a checkout and return what it prints."""
    env = os.environ | {"PYTHONPATH": code}
    done = subprocess.run(
        [sys.executable, __file__, *args], env=env, cwd=code, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    last = done.stdout.strip().splitlines()[-1:] or ["{}"]
    return json.loads(last[0])


def main() -> None:
    parse = argparse.ArgumentParser()
    parse.add_argument("--shards", default="100,1000,10000")
    parse.add_argument("--from", dest="kept", type=Path)
    parse.add_argument("--against", help="root of another checkout")
    args = parse.parse_args()
    here = str(Path(__file__).parents[1])
    print(f"{'code':8} {'shards':>7} {'command':14} {'CPU s':>8} {'MB':>6} {'opens':>9} {'listings':>9}")
    with tempfile.TemporaryDirectory() as scratch:
        for shards in map(int, args.shards.split(",")):
            for name, code in [("before", args.against)] * bool(args.against) + [("now", here)]:
                root = (args.kept or Path(scratch)) / f"{name}-{shards}"
                if not root.exists():
                    child(code, "make", str(root), str(shards))
                time.sleep(3)  # so that the parts are older than a tick of any clock
                run = ["run", "--work", str(root), "--quiet", "--in-process"]
                for label, argv in (
                    ("first status", ["status", str(root)]),
                    ("status", ["status", str(root)]),
                    ("run", run),
                ):
                    if label == "first status" and name == "before":
                        continue
                    cost = child(code, "measure", *argv)
                    if cost["code"]:
                        raise SystemExit(f"{label} of {root} ended with {cost['code']}")
                    print(
                        f"{name:8} {shards:7} {label:14} {cost['cpu_s']:8.2f} {cost['mb']:6.0f} {cost.get('opens', 0):9} "
                        f"{cost.get('listings', 0):9}",
                        flush=True,
                    )
                if not args.kept:
                    shutil.rmtree(root)


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["measure"]:
        measure(sys.argv[2:])
    else:
        main()
