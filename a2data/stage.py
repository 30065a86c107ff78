"""The one abstraction: a stage is a value that names its inputs, its output and its cost."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Stage:
    """Reads some tables, writes one. Its fields are its settings: CLI flags and resume key alike (str, int, float or bool).

    `load` fetches what is heavy, once per worker; `run` is pure: rows in, rows out. What `run` yields is either a row of
    `writes` or a Reject; only the runner writes. One that raises costs its unit (a video, a clip), which is then named among
    the failures of the part and left out of everything that follows. A stage that sees more than one unit at a time yields a
    Failure for one that it cannot do.

    What `run` is given depends on `per`:

    * "video" or "clip": `run(model, *rows)`, one list of rows for each table in `reads`, all of one video or clip. The units are
      those of the first table: that is how a selection is followed.
    * "shard": the same, with the rows of the whole shard.
    * "all": `run(model, *tables)`, Arrow tables over every shard, each with an int32 column "shard" added.

    A stage that `borrows` gets one more argument, `lookup(stage, shard, column, values, record=None) -> {value: row}` (see
    a2data.store.lookup): rows of a borrowed table, found by a column's value in the shard named, whichever shard is being made.
    What it borrows is no part of the resume key, so a row that it reads must name what it borrows by content (see
    Reference.image_sha256).

    A stage per "all" that `spreads` gets `spread`, with which it may have pure calls done wherever there is room (see
    a2data.task_map): what it would otherwise compute alone while a cluster waits.

    A stage per "video" that `opens_sources` gets `source_file(video_id, path)`, which says how the copy of a downloaded source is
    opened (see a2data.store.source_files).
    A stage with `accounts_for` yields something, be it a Reject, for every value that this column of its first table has. The
    runner reports the unit of a value without any as failed, so that no input disappears. Without it, no row means that there was
    nothing to find.

    A stage with `in_flight` above 1 is one that waits for a server: `run` is called for so many units at a time, in threads, with
    one and the same model. Rows are written in the order of the units all the same.
    """

    reads: ClassVar[dict[str, type]]  # stages whose tables it reads, and the record that says which columns
    lookup_tables: ClassVar[dict[str, type]] = {}
    writes: ClassVar[type]
    per: ClassVar[str] = "clip"
    cpus: ClassVar[float] = 1
    gpus: ClassVar[float] = 0
    concurrency: ClassVar[int] = (
        1  # units at a time, each in its own thread; for stages per "video" or "clip" that wait
    )
    uses_task_map: ClassVar[bool] = False
    opens_sources: ClassVar[bool] = False
    # "video_id", "clip_id" or, for stages per "all", "element_id"; "" = may yield nothing
    accounts_for: ClassVar[str] = ""
    unit_timeout_s: ClassVar[float] = 1800.0  # without a row, a frame or a task done, after which a unit is given up
    uncached_fields: ClassVar[tuple[str, ...]] = ()  # settings that change no row, and are no part of the resume key
    version: ClassVar[int] = 1  # raise it when run() gives other rows for the same settings

    @classmethod
    def name(cls) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    def cache_fields(self) -> dict[str, Any]:
        """The settings that its rows follow from."""
        return {name: value for name, value in asdict(self).items() if name not in self.uncached_fields}

    def models(self) -> dict[str, str]:
        """What `load` will load: card or path -> revision. Part of the resume key."""
        return {}

    def load(self) -> Any:
        return None

    def run(self, *args: Any, **kwargs: Any) -> Iterable[Any]:
        raise NotImplementedError(f"{type(self).__name__}.run")
