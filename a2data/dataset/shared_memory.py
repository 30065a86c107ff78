"""Transfer of a sample from a worker process as one block of shared memory, without a second copy.

Separate arrays would each need a file descriptor of shared memory, of which a process has about a thousand.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from a2data.dataset.decode import Sample


class SharedSample(NamedTuple):
    """A sample with its arrays concatenated into one block of shared memory, with one file descriptor."""

    template: Sample  # with a BlockSlice instead of each array
    data: torch.Tensor  # uint8

    def sample(self) -> Sample:
        """Return the sample with its arrays as views of the block."""
        return map_arrays(self.template, self.view)

    def view(self, block_slice: "BlockSlice") -> Any:
        data = self.data[block_slice.offset : block_slice.offset + block_slice.bytes]
        if isinstance(block_slice.dtype, torch.dtype):
            return data.view(block_slice.dtype).view(block_slice.shape)
        return (
            data.numpy().view(block_slice.dtype).reshape(block_slice.shape) if block_slice.dtype else data.numpy().data
        )


class BlockSlice(NamedTuple):
    offset: int
    bytes: int
    dtype: Any  # of torch, of numpy; None for a memoryview
    shape: tuple[int, ...]


def to_shared_memory(sample: Sample) -> SharedSample:
    """Return the sample as one block; `SharedSample.sample` is the inverse."""
    parts, end = list[np.ndarray](), 0

    def append(array: Any) -> BlockSlice:
        nonlocal end
        if isinstance(array, torch.Tensor):
            flat, dtype, shape = (
                array.contiguous().reshape(-1).view(torch.uint8).numpy(),
                array.dtype,
                tuple(array.shape),
            )
        elif isinstance(array, np.ndarray):
            flat, dtype, shape = np.ascontiguousarray(array).reshape(-1).view(np.uint8), array.dtype, array.shape
        else:
            flat, dtype, shape = np.frombuffer(array, np.uint8), None, (len(array),)
        parts.extend([flat, np.zeros(-len(flat) % 64, np.uint8)])  # aligned for any dtype
        block_slice = BlockSlice(end, len(flat), dtype, shape)
        end += len(flat) + len(parts[-1])
        return block_slice

    template = map_arrays(sample, append)
    return SharedSample(template, torch.from_numpy(np.concatenate(parts) if parts else np.zeros(0, np.uint8)))


def map_arrays(sample: Sample, change: Callable[[Any], Any]) -> Sample:
    """Return the sample with every array replaced by `change(array)`."""
    return replace(
        sample,
        video=None if sample.video is None else change(sample.video),
        sound=None if sample.sound is None else change(sample.sound),
        references=tuple(r._replace(picture=change(r.picture)) for r in sample.references),
        tensors={name: change(tensor) for name, tensor in sample.tensors.items()},
        members={name: change(data) for name, data in sample.members.items()},
    )
