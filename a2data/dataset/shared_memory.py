"""A sample as one piece of memory: what a worker process hands over without copying it twice.

An array on its own would take a file descriptor of shared memory each, of which a process has about a thousand.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from a2data.dataset.decode import Sample


class Bundled(NamedTuple):
    """A sample whose arrays lie one behind the other: one piece of shared memory, one file descriptor."""

    rest: Sample  # with (offset, dtype, shape) in place of each array
    data: torch.Tensor  # uint8

    def sample(self) -> Sample:
        """The sample again, its arrays where they lie."""
        return swap(self.rest, self.take)

    def take(self, place: "Place") -> Any:
        data = self.data[place.offset : place.offset + place.bytes]
        if isinstance(place.dtype, torch.dtype):
            return data.view(place.dtype).view(place.shape)
        return data.numpy().view(place.dtype).reshape(place.shape) if place.dtype else data.numpy().data


class Place(NamedTuple):
    offset: int
    bytes: int
    dtype: Any  # of torch, of numpy; None for a memoryview
    shape: tuple[int, ...]


def to_shared_memory(sample: Sample) -> Bundled:
    """The sample to hand over; `Bundled.sample` is its inverse."""
    parts, at = list[np.ndarray](), 0

    def put(array: Any) -> Place:
        nonlocal at
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
        place = Place(at, len(flat), dtype, shape)
        at += len(flat) + len(parts[-1])
        return place

    rest = swap(sample, put)
    return Bundled(rest, torch.from_numpy(np.concatenate(parts) if parts else np.zeros(0, np.uint8)))


def swap(sample: Sample, change: Callable[[Any], Any]) -> Sample:
    """The sample with every array replaced."""
    return replace(
        sample,
        video=None if sample.video is None else change(sample.video),
        references=tuple(r._replace(picture=change(r.picture)) for r in sample.references),
        tensors={name: change(tensor) for name, tensor in sample.tensors.items()},
        members={name: change(data) for name, data in sample.members.items()},
    )
