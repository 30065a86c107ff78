"""Checkpoints of torch.distributed.checkpoint read without running what is in them.

Its `.metadata` is a pickle, and so are its values that are not tensors: torch's own reader runs whatever code they name. Here
`.metadata` may name the few classes that describe tensors, and nothing else; tensors and values go through torch's weights_only.
"""

import io
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader
from torch.distributed.checkpoint._nested_dict import set_element
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

FILE = re.compile(r"__\d+_\d+\.distcp")
METADATA = "torch.distributed.checkpoint.metadata"
ALLOWED = {
    *(
        (METADATA, name)
        for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "TensorStorageMetadata")
    ),
    *((METADATA, name) for name in ("BytesStorageMetadata", "ChunkStorageMetadata", "_MEM_FORMAT_ENCODING")),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib._local", "Path"),
    ("pathlib._local", "PosixPath"),
    ("collections", "OrderedDict"),
}


class DamagedError(ValueError):
    """A file of a checkpoint that is not what was written."""


class Unpickler(pickle.Unpickler):
    """Makes objects of the allowed classes; whatever else is named is an error before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        kind = getattr(torch, name, None) if module == "torch" else None
        if (module, name) in ALLOWED or isinstance(kind, torch.dtype):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint of this program names")


def metadata_in(folder: Path) -> Metadata:
    """What `.metadata` says. Raises DamagedError, naming the file, where it says anything else, or of other files."""
    path = folder / ".metadata"
    try:
        metadata = Unpickler(io.BytesIO(path.read_bytes())).load()
    except Exception as error:  # a damaged pickle raises whatever the objects that it makes raise
        raise DamagedError(f"{path} is damaged, or not of this program: {error or type(error).__name__}") from error
    if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_data, dict):
        raise DamagedError(f"{path} is damaged, or not of this program: it describes no checkpoint")
    for place in metadata.storage_data.values():
        name, offset, length = (getattr(place, part, None) for part in ("relative_path", "offset", "length"))
        if not isinstance(name, str) or not FILE.fullmatch(name) or getattr(place, "transform_descriptors", None):
            raise DamagedError(f"{path} is damaged, or not of this program: it names the file {name!r}")
        if not (type(offset) is int and type(length) is int and offset >= 0 and length >= 0):
            raise DamagedError(f"{path} is damaged: {name} would be read from byte {offset!r} on for {length!r}")
        size = (folder / name).stat().st_size if (folder / name).is_file() else -1
        if offset + length > size:
            raise DamagedError(f"{folder / name} is damaged: it ends at byte {max(size, 0)} of {offset + length}")
    return metadata


class Reader(FileSystemReader):
    """torch's reader, with `.metadata` as `metadata_in` reads it."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        metadata = metadata_in(Path(self.path))
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata

    def read_data(self, plan: Any, planner: Any) -> Any:
        """File by file. Raises DamagedError, naming the file, where one does not hold the tensors or values that it should."""
        items_of: dict[str, list[Any]] = {}
        for item in plan.items:
            items_of.setdefault(self.storage_data[item.storage_index].relative_path, []).append(item)
        done = super().read_data(replace(plan, items=[]), planner)
        for name, items in items_of.items():
            try:
                super().read_data(replace(plan, items=items), planner)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise DamagedError(f"{Path(self.path) / name} is damaged, or not of this program: {why}") from error
        return done


class Planner(DefaultLoadPlanner):
    """torch's planner; values that are not tensors are numbers, texts, lists and dictionaries, or an error."""

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        loaded = torch.load(value, weights_only=True)
        set_element(self.original_state_dict, self.mappings[read_item.dest_index.fqn], loaded)
