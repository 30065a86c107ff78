"""kill -9 of Ray's own processes while a driver waits for its workers: it continues with the rest or reports an error."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import toy

from a2data.records import Score

pytest.importorskip("ray")

# the driver is a command of a2data, so that its exit code and its last line are those that a user sees
DRIVER = """
    import os, sys, threading, time
    sys.path.insert(0, {tests!r})
    import ray
    from ray.cluster_utils import Cluster
    from toy import Choose, Cut, Join, Measure
    from a2data.store.tables import Store
    from pipelines.cli import demo_films
    from pipelines.cli import main as cli
    from pipelines.run.bounded import TimeoutExecutor
    from pipelines.run.on_ray import RayExecutor
    from pipelines.run.schedule import run

    victim, shards = {victim!r}, [0, 1]
    cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "include_dashboard": False}})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)] if victim == "other raylets" else [cluster.head_node]
    ray.init(address=cluster.address, log_to_driver=False)
    store = Store({root!r})
    stages = [Cut(), Measure(seconds={seconds!r}), Choose(), Join()]

    def kill():
        while not any(name.endswith(".doing") for name in store.names("measure")):
            time.sleep(0.05)
        for node in nodes:
            for process in node.all_processes[victim.removeprefix("other ").removesuffix("s")]:
                process.process.kill()

    def work(args):
        threading.Thread(target=kill, daemon=True).start()
        return len(run(stages, store, shards, TimeoutExecutor(RayExecutor(store, cpus=0.5))).failed_jobs)

    demo_films._render = work
    sys.exit(cli.main(["demo-films", "none"]))
"""


def killed(store, tmp_path, victim: str, seconds: float) -> tuple[int, str, float]:
    """The exit code of a driver, one of whose Ray processes is killed, its last lines and its time in seconds."""
    script = tmp_path / "driver.py"
    tests = str(Path(toy.__file__).parent)
    script.write_text(textwrap.dedent(DRIVER.format(tests=tests, victim=victim, root=store.root, seconds=seconds)))
    paths = os.pathsep.join([tests, os.getcwd()])
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return done.returncode, done.stderr, time.monotonic() - began


@pytest.mark.slow
def test_the_run_ends_with_an_error_when_the_raylet_of_its_machine_is_killed(store, tmp_path):
    code, said, _ = killed(store, tmp_path, "raylet", 600.0)

    assert code == 1, said
    assert "a2data: the Ray node of this machine has died; restart it" in said


@pytest.mark.slow
def test_the_run_ends_with_an_error_when_the_head_of_the_cluster_is_killed(store, tmp_path):
    code, said, _ = killed(store, tmp_path, "gcs_server", 600.0)

    assert code == 1, said
    assert "a2data: the Ray cluster has not answered for 40 s; restart it" in said


@pytest.mark.slow
def test_the_run_continues_when_the_raylets_of_the_other_nodes_are_killed_at_once(store, tmp_path):
    code, said, _ = killed(store, tmp_path, "other raylets", 0.5)

    assert code == 0, said
    assert sum(len(list(store.read("join", shard, Score))) for shard in (0, 1)) == 12
