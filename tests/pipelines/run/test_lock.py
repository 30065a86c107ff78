"""The lock of a folder across processes."""

import subprocess
import sys

import pytest

from a2data.store.folder import Folder
from pipelines.run.lock import exclusive_lock

HOLD = """
import sys, time
from a2data.store.folder import Folder
from pipelines.run.lock import exclusive_lock
with exclusive_lock(Folder(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_holds_the_lock_until_it_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for _ in range(2):
            with (
                pytest.raises(BlockingIOError, match=f"in use by process {other.pid} on "),
                exclusive_lock(Folder(str(tmp_path))),
            ):
                pass
        other.kill()
    with exclusive_lock(Folder(str(tmp_path))), exclusive_lock(Folder(str(tmp_path / "shards"))):
        pass


def test_the_lock_is_released_at_the_end_of_the_block(tmp_path):
    folder = Folder(str(tmp_path))
    lock = exclusive_lock(folder)
    with lock:
        pass
    with exclusive_lock(folder):
        pass
