"""Partial results of a unit, kept until its part is written, so that a worker that is killed costs one of them."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from a2data.heartbeat import step
from a2data.stage import Stage
from a2data.store.schema import from_table, schema, to_table
from a2data.store.tables import Store, key_of
from a2data.task_map import TaskMap

SUFFIX = ".partial"
FACTS = b"facts"


@dataclass(frozen=True)
class PartialResult:
    """What a task of a unit found, as JSON, and a function that returns the rows that it made."""

    facts: Any
    rows: Callable[[], list[Any]]


class StoredTaskMap:
    """A parallel map for the tasks of one stage over one shard, which keeps their results in the folder of the stage.

    The last argument of a task, whose `repr` tells it from others, and the resume key of the stage name its result.
    """

    def __init__(self, store: Store, stage: Stage, shard: int, task_map: TaskMap):
        self.store, self.stage, self.shard, self.task_map = store, stage, shard, task_map
        self.used = False

    def __call__(
        self, work: Callable[..., PartialResult], arguments: Sequence[Any], tasks: Sequence[tuple[int, ...]]
    ) -> Iterator[PartialResult]:
        """Run the tasks without a stored result, then yield all results in order. See a2data.task_map."""
        self.used = True
        folder, key = self.stage.name(), key_of(self.stage)
        digests = (key({"work": work.__name__, "task": repr(arguments[task[-1]])}) for task in tasks)
        names = [f"{self.shard:05d}.{digest}{SUFFIX}" for digest in digests]
        existing = set(self.store.names(folder))
        missing = [n for n, name in enumerate(names) if name not in existing]
        keep = partial(_run_and_store, self.store, folder, self.stage.writes, work)
        names_missing = [names[n] for n in missing]
        with_names = [(*tasks[n], len(arguments) + index) for index, n in enumerate(missing)]
        for _ in self.task_map(keep, [*arguments, *names_missing], with_names):
            step()
        for name in names:
            yield _load(self.store, folder, name, self.stage.writes)

    def remove(self) -> None:
        """Remove the results of the shard."""
        if self.used:
            remove_partials(self.store, self.stage.name(), f"{self.shard:05d}.")


def remove_partials(store: Store, folder: str, prefix: str = "") -> None:
    for name in store.names(folder):
        if name.startswith(prefix) and name.endswith(SUFFIX):
            store.remove(folder, name)


def _run_and_store(
    store: Store, folder: str, record: type, work: Callable[..., PartialResult], *task_arguments: Any
) -> None:
    """Run a task and write its result; only its name passes between workers."""
    *arguments, name = task_arguments
    result = work(*arguments)
    table = to_table(record, result.rows()).replace_schema_metadata({FACTS: json.dumps(result.facts).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    store.put(hashlib.sha256(data).digest() + data, folder, name)


def _load(store: Store, folder: str, name: str, record: type) -> PartialResult:
    def table() -> pa.Table:
        data = store.get(folder, name) or b""
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            store.remove(folder, name)
            raise OSError(f"{store.path(folder, name)} was damaged and is removed: run again")
        return pa.ipc.open_stream(data[32:]).read_all()

    facts = json.loads(table().schema.metadata[FACTS])
    return PartialResult(facts, lambda: from_table(record, table().cast(schema(record))))
