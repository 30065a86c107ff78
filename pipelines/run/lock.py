"""Lock that admits one run at a time to a work folder or a folder of shards."""

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
    # importing it takes 20 ms, which commands without a lock save
    import filelock

    os.makedirs(store.base, exist_ok=True)
    path = store.path(LOCK)
    # the kernel's lock or none: a fallback by the existence of a file would outlive a killed run
    lock = filelock.FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        held = lock.acquire()
    except filelock.Timeout:
        with open(path, encoding="utf-8") as file:
            holder = file.read() or "another process"
        raise BlockingIOError(f"{store.root} is in use by {holder}: wait for it or stop it") from None
    with held, open(path, "w", encoding="utf-8") as file:
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
