"""The commands of `a2data` as functions, for programs and notebooks; `import a2data` offers `a2data.run` and `a2data.open`.

Rows are Arrow tables (`.to_pandas()`, `polars.from_arrow(...)`). Pictures, clips and triplets are shown in a notebook.
"""

import os
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from a2data.dataset import writer
from a2data.dataset.triplet import TripletMeta, from_sample
from a2data.records import ClipVideo, ElementPicture
from a2data.store.folder import Folder
from a2data.store.ledger import Ledger
from a2data.store.schema import to_table
from a2data.store.tables import Store
from pipelines.cli.main import execute, parser
from pipelines.corpus import explain as history
from pipelines.report.page import default_path, write_report
from pipelines.run import status
from pipelines.run.recipe import Recipe, element_tables
from pipelines.triplets import triplets

FAILURES = pa.schema(
    [("stage", "string"), ("shard", "int64"), ("unit", "string"), ("source", "string"), ("error", "string")]
)


class RunError(RuntimeError):
    """A run ended with jobs or units that failed; what it did is kept, and the next run resumes it."""


def run(
    videos: str | os.PathLike | Iterable[str | os.PathLike] = (),
    *,
    work: str | os.PathLike,
    profile: str | None = None,
    out: str | os.PathLike | None = None,
    settings: Mapping[str, Any] | None = None,
    **flags: Any,
) -> "Work":
    """Run videos through the pipeline and return the work folder, as `a2data run` does.

    videos: files, folders, globs, URLs or manifests; none to resume `work` with the videos that it has. out: folder of the
    shards. settings: {"detect.confidence": 0.5, ...}, as --set. flags: other flags of the command, with underscores, such as
    workers=2, quiet=True, unit_timeout=["caption=600", "3600"].

    A script needs `if __name__ == "__main__":` around the call, since worker processes import it. Raises ValueError for an
    invalid argument, RunError if the command would exit with 1.
    """
    given = [videos] if isinstance(videos, str | os.PathLike) else list(videos)
    named = {"work": work, "profile": profile, "out": out, **flags}
    words = [word for name, value in named.items() for word in _flag(name, value)]
    words += [f"--set={name}={value}" for name, value in (settings or {}).items()]
    args = parser().parse_args(["run", *words, "--", *(os.fspath(video) for video in given)])
    if execute(args):
        raise RunError(f"the run failed; the reasons are above and in a2data.open({os.fspath(work)!r}).failures()")
    return Work(work)


def open(work: str | os.PathLike) -> "Work":
    """Return an existing work folder, to read what a run made. Raises ValueError if it was never run."""
    return Work(work)


def _flag(name: str, value: Any) -> list[str]:
    """Return the words of a flag: none for None and False, one word for True, one for each value of a list."""
    flag = "--" + name.replace("_", "-")
    if value is None or isinstance(value, bool):
        return [flag] if value else []
    values = value if isinstance(value, list | tuple) else [value]
    return [f"{flag}={os.fspath(v) if isinstance(v, os.PathLike) else v}" for v in values]


class Work:
    """A work folder, open for reading."""

    def __init__(self, path: str | os.PathLike):
        self.store = Store(path)
        self.recipe = Recipe.existing(self.store)
        self.stages = self.recipe.apply(triplets(self.recipe.profile), self.store)

    def __repr__(self) -> str:
        return f"a2data.open({self.store.root!r})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.store.root)}, profile {escape(self.recipe.profile)}</p>{_html(self.status())}"

    @property
    def shards(self) -> Folder:
        """Return the folder of the WebDataset shards."""
        return self.recipe.folder(self.store)

    def status(self) -> pa.Table:
        """Return a row per stage: fresh and all parts, units done, rejected and failed, as `a2data status` does."""
        return pa.Table.from_pylist(status.progress(self.stages, Ledger(self.store)))

    def failures(self) -> pa.Table:
        """Return a row per failure: stage, shard, unit, source and error, as `a2data failures` does."""
        names = [stage.name() for stage in self.stages]
        return pa.Table.from_pylist(status.failed_units(Ledger(self.store), names), schema=FAILURES)

    def explain(self, key: str) -> str:
        """Return the history of a video, clip or element as text. Raises ValueError if the key is unknown."""
        return history.explain(self.store, key, self.stages)

    def table(self, stage: str) -> pa.Table:
        """Return all rows of a stage, or of "manifest", with the column "shard", without pixels and vectors."""
        known = ["manifest", *(s.name() for s in self.stages)]
        if stage not in known:
            raise ValueError(f"unknown stage {stage!r}; the tables are {', '.join(known)}")
        parts = []
        for shard in self.store.shards(stage):
            with self.store.open_part(stage, shard) as part:
                rows = part.table(history.plain_columns(part.schema))
            parts.append(rows.append_column("shard", pa.array([shard] * len(rows), pa.int32())))
        return pa.concat_tables(parts, promote_options="default") if parts else pa.table({})

    def picture(self, element_id: str) -> "Picture":
        """Return the cut-out of an element, RGBA. Raises ValueError if the element is unknown."""
        found = history.resolve_key(self.store, element_id, self.stages)
        for table in element_tables(self.stages):
            for row in self._rows(table, found.shard, ElementPicture, "element_id", found.key):
                return Picture(row.image)
        raise ValueError(f"{found.kind} {found.key} does not have a picture")

    def clip(self, clip_id: str) -> "Film":
        """Return a clip as mp4. Raises ValueError if the clip is unknown."""
        found = history.resolve_key(self.store, clip_id, self.stages)
        for row in self._rows("segment", found.shard, ClipVideo, "clip_id", found.key):
            return Film(row.video)
        raise ValueError(f"{found.kind} {found.key} is not a clip")

    def _rows(self, table: str, shard: int, record: type, column: str, value: str) -> list[Any]:
        if shard not in self.store.shards(table):
            return []
        return [row for _, rows in self.store.groups(table, shard, record, column, [value]) for row in rows]

    def index(self) -> pa.Table:
        """Return a row per triplet of the shards: clip_id, shard, roles, scores and more. Raises ValueError without shards."""
        rows = writer.rows(self.shards)
        return to_table(type(rows[0]), rows) if rows else pa.table({})

    def triplet(self, clip_id: str) -> "Triplet":
        """Return a triplet of the shards. Raises ValueError if they do not have it."""
        for row in writer.rows(self.shards):
            if row.clip_id == clip_id:
                return Triplet.of(writer.read_sample(self.shards, clip_id, row.shard, row.offset, row.bytes))
        raise ValueError(f"{clip_id} is not in the shards in {self.shards.root}: `explain` tells why")

    def report(self, out: str | os.PathLike | None = None) -> str:
        """Write the report as one HTML file and return its path or URL (default: report.html in the work folder)."""
        html = os.fspath(out or default_path(self.store))
        write_report(self.store, html, self.stages, self.shards)
        return html


@dataclass(frozen=True)
class Picture:
    """A PNG, shown in a notebook."""

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png

    def array(self) -> np.ndarray:
        """Return the pixels, (h, w, 3 or 4) uint8."""
        return np.asarray(Image.open(BytesIO(self.png)))


@dataclass(frozen=True)
class Film:
    """An mp4, shown in a notebook."""

    mp4: bytes

    def _repr_html_(self) -> str:
        return f'<video controls loop muted height="240" src="data:video/mp4;base64,{b64encode(self.mp4).decode()}"></video>'


@dataclass(frozen=True)
class Triplet:
    """A prompt, its references and the target clip, shown in a notebook."""

    prompt: str
    references: dict[str, Picture]  # "ref0", ... and "bg" -> RGB on white
    video: Film
    facts: TripletMeta  # everything else that the shards say about it

    @classmethod
    def of(cls, members: dict[str, bytes]) -> "Triplet":
        """Return the triplet of the members of a sample."""
        found = from_sample(members)
        pictures = {name: Picture(png) for name, png in found.pictures.items()}
        return cls(found.facts.caption.prompt, pictures, Film(found.video), found.facts)

    def _repr_html_(self) -> str:
        titles = {given.name: f"{given.role}: {given.phrase}" for given in self.facts.references}
        shown = "".join(
            f'<figure style="display:inline-block;margin:4px"><img height="160" alt="" '
            f'src="data:image/png;base64,{b64encode(picture.png).decode()}"><figcaption>{escape(titles[name])}</figcaption></figure>'
            for name, picture in self.references.items()
        )
        return f"<p>{escape(self.prompt)}</p><div>{shown}</div>{self.video._repr_html_()}"


def _html(table: pa.Table) -> str:
    """Return a small table as HTML."""

    def row(tag: str, cells: Sequence[Any]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(row("td", list(cells.values())) for cells in table.to_pylist())
    return f"<table>{row('th', table.column_names)}{body}</table>"
