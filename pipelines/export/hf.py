"""A data set for the Hub and `datasets`: Parquet with the pictures and videos inside, and a card."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from a2data.store.folder import Folder
from pipelines.export.target import CheckResult, Exported, SkippedRow

MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("prompt", pa.string()),
        ("video", MEDIA),
        ("references", pa.list_(MEDIA)),
        ("roles", pa.list_(pa.string())),
        ("phrases", pa.list_(pa.string())),
        ("frames", pa.int32()),
        ("fps", pa.float32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sound", pa.bool_()),
        ("license", pa.string()),
    ]
)
ROWS_PER_GROUP = 16
ROWS_PER_FILE = 256
# the features of `datasets`, which it reads from the schema's metadata
KINDS = {"string": "string", "int32": "int32", "float": "float32", "bool": "bool"}


def features() -> dict[str, Any]:
    """Return the features of `datasets` for the schema, as it writes them to Parquet."""

    def feature(kind: pa.DataType, name: str) -> Any:
        if kind == MEDIA:
            return {"_type": "Video" if name == "video" else "Image"}
        if pa.types.is_list(kind):
            return {"feature": feature(kind.value_type, name), "_type": "List"}
        return {"dtype": KINDS[str(kind)], "_type": "Value"}

    return {field.name: feature(field.type, field.name) for field in SCHEMA}


def write(out: Folder, rows: Sequence[Exported]) -> list[str]:
    """Write data/train-00000-of-NNNNN.parquet and the card. Equal rows give equal bytes."""
    schema = SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": features()}})})
    files = batched(rows, ROWS_PER_FILE)
    names = [f"train-{n:05d}-of-{len(files):05d}.parquet" for n in range(len(files))]
    for stale in set(out.names("data")) - set(names):
        out.remove("data", stale)
    for name, part in zip(names, files, strict=True):
        with out.writing("data", name) as file, pq.ParquetWriter(file, schema, compression="none") as parquet_writer:
            for group in batched(part, ROWS_PER_GROUP):
                parquet_writer.write_table(pa.Table.from_pylist(list(media_rows(out, group)), schema=schema))
    licenses = sorted({row.license for row in rows})
    out.put(_card(licenses, len(rows)).encode(), "README.md")
    return [*(f"data/{name}" for name in names), "README.md"]


def batched(rows: Sequence[Exported], count: int) -> list[Sequence[Exported]]:
    return [rows[start : start + count] for start in range(0, len(rows), count)]


def media_rows(out: Folder, rows: Sequence[Exported]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {
            "clip_id": row.clip_id,
            "prompt": row.prompt,
            "video": _media_struct(out, row.video),
            "references": [_media_struct(out, each.path) for each in row.pictures],
            "roles": [each.role for each in row.pictures],
            "phrases": [each.phrase for each in row.pictures],
            "frames": row.frames,
            "fps": row.fps,
            "width": row.width,
            "height": row.height,
            "sound": row.sound,
            "license": row.license,
        }


def _media_struct(out: Folder, path: str) -> dict[str, Any]:
    return {"bytes": out.get(path), "path": path.rpartition("/")[2]}


def _card(licenses: Sequence[str], rows: int) -> str:
    license_list = "\n".join(f"- {name}" for name in licenses)
    return (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*.parquet\n"
        "task_categories:\n- text-to-video\n---\n\n"
        f"{rows} samples of a prompt, reference pictures and a video, made by a2data. "
        f"Licences of the sources:\n\n{license_list}\n"
    )


def check(out: Folder) -> CheckResult:
    """Read every row and compare the number of pictures with that of roles."""
    rows, skipped = 0, []
    for name in out.names("data"):
        with out.reading("data", name) as file:
            for batch in pq.ParquetFile(file).iter_batches(ROWS_PER_GROUP):
                for row in batch.to_pylist():
                    rows += 1
                    if not row["video"]["bytes"] or len(row["references"]) != len(row["roles"]):
                        skipped.append(SkippedRow(f"data/{name} {row['clip_id']}", "a video or a picture is missing"))
    return CheckResult(rows, skipped, [])
