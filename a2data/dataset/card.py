"""The card of a data set for the Hugging Face hub: README.md with a YAML header that states splits, licence and types."""

import json
from typing import Any

import pyarrow as pa

from a2data.dataset.triplet import TripletMeta
from a2data.store.folder import Folder
from a2data.store.schema import schema

NAME = "README.md"
MARK = "# written by a2data; without this line the file is left as it is"
LICENCES = {"cc0": "cc0-1.0", "cc0-1.0": "cc0-1.0", "cc by 4.0": "cc-by-4.0", "cc-by-4.0": "cc-by-4.0", "mit": "mit"}


def write(out: Folder, manifest: dict[str, Any], members: list[str]) -> None:
    """Write the card of a folder of shards. A README.md that lacks MARK belongs to its user and stays."""
    old = out.get(NAME)
    if old is None or MARK.encode() in old:
        out.put(readme(manifest, members).encode(), NAME)


def readme(manifest: dict[str, Any], members: list[str]) -> str:
    """Return the card. members: extensions of every sample."""
    splits = list(manifest.get("splits", {})) or [""]
    files = [{"split": split or "train", "path": f"{split}-*.tar" if split else "[0-9]*.tar"} for split in splits]
    features = [{"name": "__key__", "dtype": "string"}, {"name": "__url__", "dtype": "string"}]
    features += [{"name": name} | feature(name) for name in members]
    licences = manifest["licenses"]
    (licence,) = {LICENCES.get(name.lower(), "other") for name in licences} if len(licences) == 1 else {"other"}
    header = {
        "license": licence,
        "task_categories": ["text-to-video"],
        "tags": ["webdataset", "reference-to-video"],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": features},
    }
    # values in JSON, which is YAML too
    yaml = "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in header.items())
    counts = "\n".join(f"| {name or 'none stated'} | {count} |" for name, count in licences.items())
    return f"""---
{MARK}
{yaml}
---

# Prompt-reference-video triplets

{manifest["samples"]} videos, {manifest["frames"]} frames, in {len(manifest["shards"])} WebDataset shards. A sample has a video
(`mp4`), its metadata (`json`, format `{manifest["format"]}`), and slots for pictures of its subjects, taken from
other videos: `ref0.png`, `ref1.png` …, and `bg.png` for the place. A slot without a picture has one white pixel; `references` in
the JSON lists the others, with role, phrase, source, licence, box and mask. `cutouts.zip` has them with transparency.

| licence | samples |
|---|---|
{counts}
"""


def feature(member: str) -> dict[str, Any]:
    """Return the type of a member as `datasets` writes it."""
    extension = member.rpartition(".")[2]
    if extension == "json":
        text = pa.field("prompt", pa.string()), pa.field("format", pa.string())
        return _type(pa.struct([*schema(TripletMeta), *text]))
    return {"dtype": {"png": "image", "mp4": "video"}.get(extension, "binary")}


def _type(arrow: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(arrow):
        fields = sorted((arrow.field(n) for n in range(arrow.num_fields)), key=lambda field: field.name)
        return {"struct": [{"name": field.name} | _type(field.type) for field in fields]}
    if pa.types.is_list(arrow) or pa.types.is_fixed_size_list(arrow):
        inner = _type(arrow.value_type)
        return {"list": inner.get("struct") or inner.get("dtype") or [inner]}
    return {"dtype": {"double": "float64"}.get(str(arrow), str(arrow))}
