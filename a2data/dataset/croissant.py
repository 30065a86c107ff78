"""The description of a data set in Croissant 1.0 (docs.mlcommons.org/croissant): croissant.json.

It has every tar with its size and sha256, and the columns of index.parquet as a record set.
"""

import json
from typing import Any

import pyarrow as pa

from a2data.records import Packed
from a2data.store.folder import Folder
from a2data.store.schema import schema

NAME = "croissant.json"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
TYPES = {"string": "sc:Text", "int64": "sc:Integer", "double": "sc:Float"}


def write(out: Folder, manifest: dict[str, Any]) -> None:
    """Write the description of a folder of shards. A croissant.json of another data set belongs to its user and stays."""
    old = out.get(NAME)
    if old is None or b'"index/clip_id"' in old:
        out.put(json.dumps(describe(manifest), indent=1).encode() + b"\n", NAME)


def describe(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the description of the data set of a manifest."""
    index = {"name": "index.parquet", **manifest["index"]}
    files = [_file(index, "application/x-parquet"), *(_file(tar, "application/x-tar") for tar in manifest["shards"])]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "triplets",
        "description": f"{manifest['samples']} prompt-reference-video triplets in WebDataset shards of {manifest['format']}",
        "license": sorted(manifest["licenses"]),
        "distribution": files,
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "index",
                "name": "index",
                "description": "a row for each sample: its tar, place, shape, roles, licence and copy risk",
                "key": {"@id": "index/clip_id"},
                "field": [_field(field) for field in schema(Packed)],
            }
        ],
    }


def _file(entry: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": entry["name"],
        "name": entry["name"],
        "contentUrl": entry["name"],
        "contentSize": f"{entry['bytes']} B",
        "encodingFormat": kind,
        "sha256": entry["sha256"],
    }


def _field(field: pa.Field) -> dict[str, Any]:
    repeated = pa.types.is_list(field.type)
    return {
        "@type": "cr:Field",
        "@id": f"index/{field.name}",
        "name": field.name,
        "dataType": TYPES[str(field.type.value_type if repeated else field.type)],
        "source": {"fileObject": {"@id": "index.parquet"}, "extract": {"column": field.name}},
        **({"repeated": True} if repeated else {}),
    }
