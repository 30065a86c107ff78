"""kill -9 at random moments: what is made in the end is what an uninterrupted run makes, and little is made twice."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import toy
import toy_pairs
from toy import SHARDS, digests, remove_all

from a2data.records import Reference
from a2data.store.tables import Store
from pipelines.run.local import InProcessExecutor, ProcessExecutor
from pipelines.run.schedule import run

JOIN = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from stages.retrieve import nearest as join
    from a2data.store.tables import Store
    from pipelines.run.local import ProcessExecutor
    from pipelines.run.schedule import run
    from stages.retrieve.stage import Retrieve

    nearest, begun = join.nearest, Path({begun!r})

    def slowly(*things, **how):
        begun.write_bytes(b"." + (begun.read_bytes() if begun.exists() else b""))
        time.sleep(0.3)
        return nearest(*things, **how)

    join.nearest = slowly  # in the child that does the join, too: it imports this file

    if __name__ == "__main__":
        store = Store({root!r})
        print(run([Retrieve(min_face=0.8, tile=2)], store, store.shards("manifest"), ProcessExecutor(store, 1)).jobs)
"""


def test_a_run_killed_inside_the_join_continues_to_the_same_references(tmp_path):
    store, begun = Store(tmp_path / "work"), tmp_path / "begun"
    people = {f"{letter * 16}": "anna bert carl" for letter in "ab"}
    toy_pairs.fill(store, people)
    *before, retrieve, _, _ = toy_pairs.stages(store, people)
    toy_pairs.make(store, before)
    script = tmp_path / "driver.py"
    script.write_text(
        textwrap.dedent(JOIN.format(tests=str(Path(toy.__file__).parent), begun=str(begun), root=store.root))
    )
    driver = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": os.getcwd()})
    while driver.poll() is None and not (begun.exists() and begun.stat().st_size >= 3):
        time.sleep(0.01)
    assert driver.poll() is None
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert store.shards("retrieve") == []

    assert run([replace(retrieve, tile=2)], store, [0], ProcessExecutor(store, 2)).jobs == 1
    resumed = list(store.read("retrieve", 0, Reference))
    store.remove("retrieve", "00000.parquet")
    run([retrieve], store, [0], InProcessExecutor(store))
    assert list(store.read("retrieve", 0, Reference)) == resumed
    assert len(resumed) == 12


DRIVER = """
    import sys
    sys.path.insert(0, {tests!r})
    from toy import Choose, Cut, Join, Measure
    from a2data.store.tables import Store
    from pipelines.run.local import ProcessExecutor
    from pipelines.run.schedule import run

    if __name__ == "__main__":
        store = Store({root!r})
        stages = [Cut(seconds=0.02), Measure(seconds=0.02), Choose(), Join()]
        print(run(stages, store, {shards!r}, ProcessExecutor(store, 2)).jobs)
"""


@pytest.mark.slow
def test_five_kills_of_the_driver_change_nothing(store, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(
        textwrap.dedent(DRIVER.format(tests=str(Path(toy.__file__).parent), root=store.root, shards=SHARDS))
    )
    command = [sys.executable, str(script)]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    rng = random.Random(0)

    for _ in range(5):
        driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.8, 2.0))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    interrupted = digests(store)

    remove_all(store)
    run(toy.toy(), store, SHARDS, InProcessExecutor(store))
    assert digests(store) == interrupted
    assert [name for name in store.names("measure") if not name.endswith(".parquet")] == []
