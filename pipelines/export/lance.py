"""A Lance data set: the columns of `hf`, with videos as blobs that are read on demand.

Source: lance-format/lance, the documentation of pylance ("Blob API": the field metadata lance-encoding:blob).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa

from a2data.store.folder import Folder
from pipelines.export import hf
from pipelines.export.probe import root
from pipelines.export.target import CheckResult, Exported, SkippedRow

NAME = "train.lance"
BYTES = pa.large_binary()


def _field(field: pa.Field) -> pa.Field:
    """Return a column of `hf` with plain bytes in place of bytes with a file name."""
    if field.type == hf.MEDIA:
        return pa.field(field.name, BYTES, metadata={"lance-encoding:blob": "true"})
    return pa.field(field.name, pa.list_(BYTES)) if field.name == "references" else field


SCHEMA = pa.schema([_field(field) for field in hf.SCHEMA])


def write(out: Folder, rows: Sequence[Exported]) -> list[str]:
    """Write train.lance, without older versions. Equal rows give equal data; Lance's own file names are random."""
    lance = _lance()
    batches = (
        pa.RecordBatch.from_pylist([_bytes_only(row) for row in hf.media_rows(out, group)], schema=SCHEMA)
        for group in hf.batched(rows, hf.ROWS_PER_GROUP)
    )
    dataset = lance.write_dataset(pa.RecordBatchReader.from_batches(SCHEMA, batches), _path(out), mode="overwrite")
    dataset.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
    return [NAME]


def _bytes_only(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"video": row["video"]["bytes"], "references": [each["bytes"] for each in row["references"]]}


def _path(out: Folder) -> str:
    return f"{root(out)}/{NAME}"


def _lance() -> Any:
    try:
        import lance
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"--to lance needs the package pylance: pip install 'a2data[lance]' ({error})"
        ) from error
    return lance


def check(out: Folder) -> CheckResult:
    """Read every row and every video, and compare the number of pictures with that of roles."""
    data = _lance().dataset(_path(out))
    skipped = []
    columns = ["clip_id", "references", "roles"]
    for number, row in enumerate(data.to_table(columns=columns).to_pylist()):
        (blob,) = data.take_blobs("video", indices=[number])
        if not blob.size() or len(row["references"]) != len(row["roles"]):
            skipped.append(SkippedRow(f"{NAME} {row['clip_id']}", "a video or a picture is missing"))
    return CheckResult(data.count_rows(), skipped, [])
