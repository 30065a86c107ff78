"""Read torch.distributed.checkpoint files without executing code from them.

`.metadata` and non-tensor values are pickles, and torch's own reader runs any code that they reference. Here `.metadata` may
reference only the few classes that describe tensors; tensors and values are loaded with torch's weights_only.
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
    """A checkpoint file that differs from what was written."""


class Unpickler(pickle.Unpickler):
    """Unpickler of the allowed classes. Any other class is an error before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        kind = getattr(torch, name, None) if module == "torch" else None
        if (module, name) in ALLOWED or isinstance(kind, torch.dtype):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it references {module}.{name}, which a2data checkpoints never do")


def metadata_in(folder: Path) -> Metadata:
    """Return the content of `.metadata`. Raises DamagedError with the file's path if it is malformed or lists unknown files."""
    path = folder / ".metadata"
    try:
        metadata = Unpickler(io.BytesIO(path.read_bytes())).load()
    # a damaged pickle may raise any error of the objects that it constructs
    except Exception as error:
        raise DamagedError(f"{path} is damaged, or not from a2data: {error or type(error).__name__}") from error
    if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_data, dict):
        raise DamagedError(f"{path} is damaged, or not from a2data: it does not describe a checkpoint")
    for location in metadata.storage_data.values():
        name, offset, length = (getattr(location, part, None) for part in ("relative_path", "offset", "length"))
        if not isinstance(name, str) or not FILE.fullmatch(name) or getattr(location, "transform_descriptors", None):
            raise DamagedError(f"{path} is damaged, or not from a2data: it lists the file {name!r}")
        if not (type(offset) is int and type(length) is int and offset >= 0 and length >= 0):
            raise DamagedError(f"{path} is damaged: it gives offset {offset!r} and length {length!r} for {name}")
        size = (folder / name).stat().st_size if (folder / name).is_file() else -1
        if offset + length > size:
            raise DamagedError(f"{folder / name} is damaged: it has {max(size, 0)} of {offset + length} bytes")
    return metadata


class Reader(FileSystemReader):
    """torch's reader, with `.metadata` read by `metadata_in`."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        metadata = metadata_in(Path(self.path))
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata

    def read_data(self, plan: Any, planner: Any) -> Any:
        """Read file by file. Raises DamagedError with the file's path if it does not hold the expected tensors or values."""
        items_of: dict[str, list[Any]] = {}
        for item in plan.items:
            items_of.setdefault(self.storage_data[item.storage_index].relative_path, []).append(item)
        future = super().read_data(replace(plan, items=[]), planner)
        for name, items in items_of.items():
            try:
                super().read_data(replace(plan, items=items), planner)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise DamagedError(f"{Path(self.path) / name} is damaged, or not from a2data: {message}") from error
        return future


class Planner(DefaultLoadPlanner):
    """torch's planner. Non-tensor values must be numbers, strings, lists or dictionaries."""

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        loaded = torch.load(value, weights_only=True)
        set_element(self.original_state_dict, self.mappings[read_item.dest_index.fqn], loaded)
