"""Lock that admits one run at a time to a work folder or a folder of shards."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from a2data.store.folder import Folder

LOCK = "run.lock"


@contextmanager
def exclusive_lock(store: Folder) -> Iterator[None]:
    """Keep other runs out of a local folder during the block. The lock is released whenever the process ends.

    Two runs would give the same number to different shards and delete each other's half-written files. A URL has no such lock;
    the user must ensure that only one run uses it. Raises BlockingIOError with the other process.
    """
    if not store.local:
        yield
        return
    os.makedirs(store.base, exist_ok=True)
    # the file is kept, since removing it would be a race
    with open(store.path(LOCK), "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read() or "another process"
            raise BlockingIOError(f"{store.root} is in use by {holder}: wait for it or stop it") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
