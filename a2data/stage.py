"""The stage: a value that declares its inputs, its output and its cost."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Stage:
    """A processing step that reads tables and writes one.

    The fields of a subclass are its settings (str, int, float or bool). They serve as CLI flags and as part of the resume key.

    `load` loads models and other heavy state, once per worker. `run` is pure and yields rows of `writes` and Rejects; only the
    runner writes. If `run` raises, its unit (a video or clip) is recorded as failed in the part's footer and skipped by all later
    stages. A stage that processes several units at a time yields a Failure for each unit that it cannot process.

    The arguments of `run` depend on `per`:

    * "video" or "clip": `run(model, *rows)`, with a list of rows of one video or clip for each table in `reads`. The units are
      those of the first table, so a stage that reads a selection first runs only on the selected units.
    * "shard": the same, with the rows of the whole shard.
    * "all": `run(model, *tables)`, with Arrow tables over all shards, each with an additional int32 column "shard".

    A stage with `lookup_tables` gets an additional argument `lookup(stage, shard, column, values, record=None) -> {value: row}`
    (see a2data.store.lookup). It returns rows of a lookup table by the value of a column, from the given shard, whichever shard
    is being made. Lookup tables are not part of the resume key, so the rows in `reads` must refer to them by content (see
    Reference.image_sha256).

    A stage per "all" or "video" with `uses_task_map` gets `task_map`, a parallel map for pure calls (see a2data.task_map), which
    uses the idle workers of a cluster. Per "video" the calls return a2data.store.partial.PartialResult.

    Such a stage may yield Arrow tables of `writes` instead of rows. With `uses_earlier` it gets `earlier`, what it kept of its
    last result (see a2data.store.earlier).

    A stage per "video" with `opens_sources` gets `source_file(video_id, path)`, which returns how to open the local copy of a
    downloaded source (see a2data.store.source_files).

    A stage with `accounts_for` yields a row or a Reject for every value of this column of its first table. If it yields neither,
    the runner records the value's unit as failed, so that inputs cannot be lost silently. Without `accounts_for`, a unit without
    rows is a unit in which nothing was found.

    A stage with `concurrency` above 1 waits for a server: `run` is called for that many units at a time, in threads that share
    the model. Rows are still written in the order of the units.
    """

    reads: ClassVar[dict[str, type]]  # input tables by stage, each with the record type that selects its columns
    lookup_tables: ClassVar[dict[str, type]] = {}
    writes: ClassVar[type]
    row_noun: ClassVar[str] = "rows"  # what the report calls its rows, in the plural
    per: ClassVar[str] = "clip"
    cpus: ClassVar[float] = 1
    gpus: ClassVar[float] = 0
    concurrency: ClassVar[int] = 1  # units at a time, each in a thread, for stages per "video" or "clip" that wait
    uses_task_map: ClassVar[bool] = False
    uses_earlier: ClassVar[bool] = False
    opens_sources: ClassVar[bool] = False
    # "video_id", "clip_id" or, for stages per "all", "element_id"; "" = may yield nothing
    accounts_for: ClassVar[str] = ""
    unit_timeout_s: ClassVar[float] = 1800.0  # longest time without a row, frame or task done before a unit fails
    uncached_fields: ClassVar[tuple[str, ...]] = ()  # settings that do not affect rows; not part of the resume key
    version: ClassVar[int] = 1  # raise it when run() returns different rows for the same settings

    @classmethod
    def name(cls) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def unit(cls) -> str:
        """Return what `num_inputs` counts: "video", "clip", "element", or "row" if nothing is accounted for."""
        return cls.per if cls.per in ("video", "clip") else cls.accounts_for.removesuffix("_id") or "row"

    def cache_fields(self) -> dict[str, Any]:
        """Return the settings that affect the rows."""
        return {name: value for name, value in asdict(self).items() if name not in self.uncached_fields}

    def models(self) -> dict[str, str]:
        """Return the models that `load` loads: card or path -> revision. Part of the resume key."""
        return {}

    def load(self) -> Any:
        return None

    def run(self, *args: Any, **kwargs: Any) -> Iterable[Any]:
        raise NotImplementedError(f"{type(self).__name__}.run")
