"""Nodes of a Ray cluster that leave in the middle of each kind of stage, several at once: what is repeated, what is lost?

    python -m benchmarks.spot_loss [--nodes 4] [--leave 2]

Stub stages, one of each kind, run over 8 shards on worker nodes of one CPU each. Once jobs of a kind are in flight on `--leave`
nodes, all processes of these nodes are killed at the same moment; the run ends on the others. Prints for each kind the jobs that
were in hand on the lost nodes, the jobs that ran again, the units that were blamed, the rows lost, and whether all tables equal
those of one undisturbed process. Exits 1 if rows were lost, tables differ, or more was repeated than was in hand.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from a2data.records import Kept, Score, Source
from a2data.stage import Stage
from a2data.store.tables import Store
from a2data.task_map import TaskMap, map_serial
from pipelines.run.bounded import TimeoutExecutor
from pipelines.run.local import InProcessExecutor
from pipelines.run.on_ray import RayExecutor
from pipelines.run.schedule import run

SHARDS, VIDEOS, CLIPS = list(range(8)), 2, 4  # videos of a shard, clips of a video
NOTES = "A2DATA_SPOT_NOTES"  # folder of the files "STAGE SHARD", each with the node that last worked on it


def work(stage: Stage, unit: str) -> None:
    """Take a moment, and note on which node, if this is a Ray worker. The first 15 digits of a unit's id are its shard."""
    if ray.is_initialized() and NOTES in os.environ:
        shard = int(unit[:15], 16) if unit else 0
        Path(os.environ[NOTES], f"{stage.name()} {shard}").write_text(ray.get_runtime_context().get_node_id())
        time.sleep(0.15)


@dataclass(frozen=True)
class PerVideo(Stage):
    """As ingest and segment."""

    reads = {"manifest": Source}
    writes = Kept
    per = "video"

    def run(self, model: None, sources: list[Source]) -> Iterator[Kept]:
        for source in sources:
            for n in range(CLIPS):
                work(self, source.video_id)
                yield Kept(f"{source.video_id}-{n:08d}", source.video_id)


@dataclass(frozen=True)
class PerClip(Stage):
    """As detect and those that share its job."""

    reads = {"per-video": Kept}
    writes = Kept

    def run(self, model: None, clips: list[Kept]) -> Iterator[Kept]:
        work(self, clips[0].clip_id)
        yield from clips


@dataclass(frozen=True)
class Served(Stage):
    """As caption with a server: several clips in flight."""

    reads = {"per-clip": Kept}
    writes = Kept
    concurrency = 3

    run = PerClip.run


@dataclass(frozen=True)
class PerShard(Stage):
    """As match."""

    reads = {"served": Kept}
    writes = Kept
    per = "shard"

    def run(self, model: None, clips: list[Kept], shard: int) -> Iterator[Kept]:
        for clip in clips:
            work(self, clip.clip_id)
            yield clip


@dataclass(frozen=True)
class OverAll(Stage):
    """As retrieve: one job, whose tasks any node takes."""

    reads = {"per-shard": Kept}
    writes = Score
    per = "all"
    uses_task_map = True

    def run(self, model: None, clips: Any, spread: TaskMap = map_serial) -> Iterator[Score]:
        names = clips.column("clip_id").to_pylist()
        work(self, "")
        for name, size in zip(names, spread(_size, [(self, names)], [(0,)] * len(names)), strict=True):
            yield Score(name, "clips", size)


def _size(what: tuple[Stage, list[str]]) -> float:
    work(what[0], "")
    return float(len(what[1]))


STAGES: list[Stage] = [PerVideo(), PerClip(), Served(), PerShard(), OverAll()]


class Losses:
    """Listener of `run` that kills nodes while jobs of one stage are in flight on them."""

    def __init__(self, cluster: Any, target: Stage, leave: int, notes: Path):
        self.cluster, self.target, self.leave, self.notes = cluster, target, leave, notes
        self.starts: list[tuple[str, tuple[int, ...]]] = []
        self.flying: set[tuple[str, tuple[int, ...]]] = set()
        self.in_hand = 0
        self.done = False

    def __call__(self, event: str, about: Any) -> None:
        if event == "start":
            self.starts.append((about[0][0].name(), about[1]))
            self.flying.add(self.starts[-1])
        elif event == "made":
            self.flying.discard((about[1].group[0].name(), about[1].job))
        elif event == "look" and not self.done:
            at = self._nodes()
            targets = {node for (name, _), node in at.items() if name == self.target.name()}
            need = 1 if self.target.per == "all" else self.leave
            if len(targets) >= need:
                others = [node.node_id for node in self.cluster.worker_nodes if node.node_id not in targets]
                self._kill({*sorted(targets), *others[: self.leave - len(targets)]}, at)

    def _nodes(self) -> dict[tuple[str, tuple[int, ...]], str]:
        """Return the node of each job in flight."""
        noted = {job: self.notes / f"{job[0]} {job[1][0]}" for job in self.flying}
        return {job: path.read_text() for job, path in noted.items() if path.exists()}

    def _kill(self, lost: set[str], at: dict[tuple[str, tuple[int, ...]], str]) -> None:
        self.done = True
        self.in_hand = sum(node in lost for node in at.values())
        leaving = [node for node in self.cluster.worker_nodes if node.node_id in lost]
        for node in leaving:  # all, before Ray sees that the first is gone
            for process in [p for kind in node.all_processes.values() for p in kind]:
                process.process.kill()
        for node in leaving:
            self.cluster.remove_node(node, allow_graceful=False)


NODE = {"num_cpus": 1, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}


def fill(root: Path) -> Store:
    """Write the list of videos."""
    store = Store(root)
    for shard in SHARDS:
        rows = [Source(f"{shard:015x}{n:x}", f"{n}.mp4", "", "", "", 1, "") for n in range(VIDEOS)]
        store.write("manifest", shard, Source, rows)
    return store


def digests(store: Store) -> list[str]:
    footers = [store.footer(stage.name(), shard) for stage in STAGES for shard in SHARDS]
    return [footer.digest for footer in footers if footer]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--nodes", type=int, default=4)
    arguments.add_argument("--leave", type=int, default=2)
    given = arguments.parse_args()
    expected, good = len(SHARDS) * VIDEOS * CLIPS, True
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        calm = fill(root / "calm")
        run(STAGES, calm, SHARDS, InProcessExecutor(calm))
        os.environ |= {NOTES: str(root / "notes"), "PYTHONPATH": os.getcwd(), "RAY_raylet_start_wait_time_s": "180"}
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0})
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        print(
            f"{'stage':10} {'nodes lost':>10} {'in hand':>8} {'repeated':>9} {'blamed':>7} {'rows lost':>10}  tables",
            flush=True,
        )
        for target in STAGES:
            for note in (root / "notes").glob("*"):
                note.unlink()
            (root / "notes").mkdir(exist_ok=True)
            store = fill(root / target.name())
            while len(cluster.worker_nodes) < given.nodes:
                cluster.add_node(**NODE)
            losses = Losses(cluster, target, given.leave, root / "notes")
            began = time.perf_counter()
            summary = run(STAGES, store, SHARDS, TimeoutExecutor(RayExecutor(store), timeout_s=90.0), losses)
            seconds = time.perf_counter() - began
            again = len(losses.starts) - len(set(losses.starts))
            footers = [store.footer(stage.name(), shard) for stage in STAGES for shard in SHARDS]
            blamed = sum(len(footer.failed) for footer in footers if footer) + len(summary.failed_jobs)
            lost = expected - sum(len(list(store.read("over-all", shard, Score))) for shard in store.shards("over-all"))
            same = digests(store) == digests(calm)
            lost_nodes = given.leave if losses.done else 0
            told = f"{'the same' if same else 'OTHERS'} ({seconds:.0f} s)"
            print(
                f"{target.name():10} {lost_nodes:10} {losses.in_hand:8} {again:9} {blamed:7} {lost:10}  {told}",
                flush=True,
            )
            good &= same and not blamed and not lost and lost_nodes > 0 and again <= losses.in_hand
        ray.shutdown()
        cluster.shutdown()
    print("nothing lost, nothing repeated but the jobs in hand" if good else "NOT as promised")
    sys.exit(not good)


if __name__ == "__main__":
    main()
