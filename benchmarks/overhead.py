"""Orchestration overhead: stub stages of 10 ms per clip on 2 workers, wall time against the ideal.

    python -m benchmarks.overhead [local|ray]

Prints wall / ideal, where ideal = clips x stages x 10 ms / 2 workers; for Ray also the bytes that crossed its object store.
"""

import os
import sys
import tempfile
import time
from dataclasses import dataclass

from a2data.records import Kept, Source
from a2data.stage import Stage
from a2data.store.tables import Store
from pipelines.run.schedule import run

VIDEOS, SHARDS, CLIPS, SECONDS, WORKERS = 64, 16, 10, 0.010, 2


@dataclass(frozen=True)
class Cut(Stage):
    reads = {"manifest": Source}
    writes = Kept
    per = "video"

    def run(self, model, sources):
        for n in range(CLIPS):
            time.sleep(SECONDS)
            yield Kept(f"{sources[0].video_id}-{n:08d}", sources[0].video_id)


@dataclass(frozen=True)
class Stub(Stage):
    writes = Kept

    def run(self, model, clips):
        time.sleep(SECONDS)
        yield from clips


STAGES: list[Stage] = [Cut()]
for number in range(5):
    STAGES.append(type(f"Stub{number}", (Stub,), {"reads": {STAGES[-1].name(): Kept}, "__module__": __name__})())
    globals()[f"Stub{number}"] = type(STAGES[-1])  # so that workers can unpickle it


def main(where: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        store = Store(root)
        for shard in range(SHARDS):
            rows = [Source(f"{shard:08x}{n:08x}", f"{n}.mp4", "", "", "", 1, "") for n in range(VIDEOS // SHARDS)]
            store.write("manifest", shard, Source, rows)
        if where == "ray":
            import ray

            from pipelines.run.on_ray import RayExecutor

            os.environ["PYTHONPATH"] = os.getcwd()
            ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
            executor = RayExecutor(store)
        else:
            from pipelines.run.local import ProcessExecutor

            executor = ProcessExecutor(store, WORKERS)
        began, ideal = time.perf_counter(), VIDEOS * CLIPS * len(STAGES) * SECONDS / WORKERS
        summary = run(STAGES, store, list(range(SHARDS)), executor)
        wall = time.perf_counter() - began
        print(
            f"{where}: {summary.jobs} jobs, wall {wall:.2f} s, ideal {ideal:.2f} s, wall / ideal = {wall / ideal:.3f}"
        )
        if where == "ray":
            sent = len(ray.cloudpickle.dumps(((STAGES[-1],), (SHARDS - 1,), {})))
            per_clip = sent * summary.jobs / (VIDEOS * CLIPS)
            held = _object_store_bytes()
            print(
                f"ray: {per_clip:.0f} bytes of arguments per clip, {held} bytes in the object store at the end: no pixels"
            )


def _object_store_bytes() -> int:
    """Return the bytes in this node's object store, as reported by Ray."""
    from ray._private.internal_api import memory_summary

    text = memory_summary(stats_only=True)
    line = next(line for line in text.splitlines() if line.startswith("Plasma memory usage"))
    return int(float(line.split("usage ")[1].split(" MiB")[0]) * (1 << 20))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "local")
