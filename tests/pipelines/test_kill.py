"""kill -9 at random moments: what is made in the end is what an uninterrupted run makes, and little is made twice."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import toy
from test_schedule import SHARDS, digests, remove_all

from pipelines.local import Here
from pipelines.schedule import run

DRIVER = """
    import sys
    sys.path.insert(0, {tests!r})
    from toy import Choose, Cut, Join, Measure
    from a2data.store import Store
    from pipelines.local import Children
    from pipelines.schedule import run

    if __name__ == "__main__":
        store = Store({root!r})
        stages = [Cut(seconds=0.02), Measure(seconds=0.02), Choose(), Join()]
        print(run(stages, store, {shards!r}, Children(store, 2)).jobs)
"""


@pytest.mark.slow
def test_five_kills_of_the_driver_change_nothing(store, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER.format(tests=str(Path(__file__).parent), root=store.root, shards=SHARDS)))
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
    run(toy.toy(), store, SHARDS, Here(store))
    assert digests(store) == interrupted
    assert [name for name in store.names("measure") if not name.endswith(".parquet")] == []
