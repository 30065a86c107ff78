"""One run at a time in a work folder, and in a folder of shards."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from a2data.store.folder import Folder

LOCK = "run.lock"


@contextmanager
def exclusive_lock(store: Folder) -> Iterator[None]:
    """Keep other runs out of a local folder while the block lasts. The lock ends with the process, however it ends.

    Two runs would give the same number to different shards, and sweep away what the other has half-written. A URL has no such
    lock: there it is for the user to see to. Raises BlockingIOError, naming the other process.
    """
    if not store.local:
        yield
        return
    os.makedirs(store.base, exist_ok=True)
    with open(store.path(LOCK), "a+", encoding="utf-8") as lock:  # stays: to remove it would be a race
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read() or "another process"
            raise BlockingIOError(f"{store.root} is in use by {holder}: wait for it, or stop it") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
