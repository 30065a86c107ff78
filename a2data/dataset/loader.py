"""Streaming loader for packed shards that resumes from any step.

The samples and their order do not depend on the number of ranks and workers.

    loader = Loader("shards", seed=0, global_batch_size=256, rank=rank, world_size=world_size, num_workers=4,
                    buckets=[Bucket(81, 480, 832)])
    for samples in loader:          # this rank's part of a global batch, without end
        train(samples)
        save(loader.state_dict())   # counts consumed batches, not those prefetched by workers

The order of samples is defined in a2data.dataset.batch_plan; reading is in a2data.dataset.reader. This module needs torch.
"""

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from a2data.dataset import reader as tars
from a2data.dataset.batch_plan import Batch, Bucket, Phase, Plan, plan, rng, standard_buckets
from a2data.dataset.decode import (
    LIMITS,
    Augmentation,
    CorruptError,
    Decode,
    Limits,
    Reference,
    Sample,
    Shape,
    center_crop_resize,
)
from a2data.dataset.reader import Tars
from a2data.dataset.shared_memory import to_shared_memory
from a2data.dataset.weights import balanced_weights, copy_filter_weights, mixture_weights, rows_with_roles

__all__ = [
    "Augmentation",
    "Bucket",
    "Limits",
    "Loader",
    "Phase",
    "Reference",
    "Sample",
    "balanced_weights",
    "center_crop_resize",
    "copy_filter_weights",
    "rng",
    "standard_buckets",
]

log = logging.getLogger(__name__)

# view -> the index by which it is read
VIEWS = {"raw": "index.parquet", "encoded": "encoded.parquet", "bytes": "index.parquet"}
MAX_ATTEMPTS = 16  # attempts to replace a sample before the data set is considered broken
READ_AHEAD = 8  # samples read before the first is decoded; for URLs, concurrent ranged reads
MAX_POSITION = 1 << 40  # largest epoch and batch number accepted in a state
READ_AHEAD_BYTES = 1 << 28  # limit of the samples read ahead, so that fewer large ones are
Shards = str | os.PathLike | Sequence[str | os.PathLike] | Mapping[str, float]


class Slot(NamedTuple):
    """A slot of a global batch."""

    batch: Batch
    position: int  # in the batch
    last: bool  # of its rank in this batch

    @property
    def number(self) -> int:
        """`Sample.index`."""
        return self.batch.first + self.position


class Reader:
    """Reader of one rank's samples, one at a time; held by each worker process."""

    def __init__(self, tars: Tars, plan: Plan, rank: int, world_size: int, decode: Callable[..., Sample]):
        self.tars, self.plan, self.rank, self.world_size, self.decode = tars, plan, rank, world_size, decode
        # samples read before the first is decoded
        self.num_ahead = min(READ_AHEAD, max(1, READ_AHEAD_BYTES // int(tars.index.bytes.max())))

    def slots(self, step: int, first: int = 0, stride: int = 1) -> Iterator[Slot]:
        """Yield this rank's contiguous slots of every batch from `step` on. first, stride: only of every n-th batch."""
        for batch in itertools.islice(self.plan.batches(step), first, None, stride):
            per_rank = len(batch.rows) // self.world_size
            begin, end = self.rank * per_rank, (self.rank + 1) * per_rank
            yield from (Slot(batch, index, index == end - 1) for index in range(begin, end))

    def samples(self, slots: Iterator[Slot]) -> Iterator[tuple[Sample, bool]]:
        """Yield the sample of each slot, and whether it is the last of its batch.

        Several samples are read before the first is decoded, since a read evicts everything else from the CPU caches.
        """
        if all(folder.local for folder in self.tars.index.folders):
            while chunk := list(itertools.islice(slots, self.num_ahead)):
                pieces = [self.tars.read(int(slot.batch.rows[slot.position])) for slot in chunk]
                for slot in chunk:
                    yield self.sample(slot, pieces.pop(0)), slot.last
            return
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            reads = ((slot, pool.submit(self.tars.read, int(slot.batch.rows[slot.position]))) for slot in slots)
            pending = list(itertools.islice(reads, READ_AHEAD))
            while pending:
                slot, read = pending.pop(0)
                yield self.sample(slot, read.result()), slot.last
                pending += itertools.islice(reads, 1)

    def members(self, row: int, piece: memoryview) -> dict[str, memoryview]:
        """Return extension -> bytes. Raises CorruptError for a damaged header, LookupError if the tar is of another index."""
        try:
            return tars.members(piece, self.tars.index.key(row), self.tars.index.tar_path(row))
        except LookupError as error:
            if not self.tars.tar_matches_index(row):
                raise
            raise CorruptError(
                "is damaged: it does not begin at its offset in the index, while others in its tar do"
            ) from error
        except ValueError as error:
            raise CorruptError(str(error)) from error

    def shape(self, row: int) -> Shape:
        index = self.tars.index
        frames, height, width = (int(column[row]) for column in index.shape)
        return Shape(frames, height, width, int(index.references[row]))

    def sample(self, slot: Slot, piece: memoryview) -> Sample:
        """Return the sample of a slot. A corrupt one is replaced by another of its bucket, the same on all ranks and runs."""
        index, row, corrupt = self.tars.index, int(slot.batch.rows[slot.position]), dict[str, str]()
        for attempt in range(MAX_ATTEMPTS):
            key = index.key(row)
            try:
                sample = self.decode(self.members(row, piece), slot.batch, slot.number, row, key, self.shape)
                return replace(sample, replaced=corrupt) if corrupt else sample
            except CorruptError as error:
                corrupt[key] = f"{key} in {index.tar_path(row)}: {error}"
            row = self.plan.replacement(slot.batch, slot.number, attempt)
            piece = self.tars.read(row)
        examples = "; ".join(list(corrupt.values())[:3])
        raise ValueError(
            f"{MAX_ATTEMPTS} consecutive samples cannot be read: {examples}: copy the data set again or repack it"
        )


class Stream(IterableDataset):
    """A rank's samples in a torch DataLoader: each worker yields every n-th, its arrays in one block of shared memory."""

    def __init__(self, reader: Reader, step: int):
        self.reader, self.step = reader, step

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        try:
            for sample, last in self.reader.samples(
                itertools.islice(self.reader.slots(self.step), info.id, None, info.num_workers)
            ):
                yield to_shared_memory(sample), last
        except Exception as error:  # yielded, since torch would bury the message in a traceback of the worker
            yield error, True


class Loader(IterableDataset):
    """Infinite iterable over lists of samples, each this rank's part of a global batch.

    Args:
        shards: folder or URL written by `pack`, several of them, or a mapping of them to their fractions of an epoch.
        seed: seed of every random choice.
        global_batch_size: samples per batch over all ranks.
        rank, world_size: select the contiguous part of each batch that this process gets.
        num_workers: processes that read and decode; 0 for none.
        buckets: shapes of batches, or phases of a curriculum; None for `standard_buckets()`, the largest A2's 81 x 480 x 832.
        view: "raw" decodes the mp4 and the pictures, "encoded" reads tensors by encoded.parquet, "bytes" does not decode.
        shape: function (iterator over (h, w, 3) uint8 frames of the right number, bucket, generator) -> (t, height, width, 3);
            default `center_crop_resize`.
        augmentation: probabilities of dropout and random choices.
        weight: function of the index as a table -> (n,), how often each sample occurs in an epoch.
        max_tokens, tail: see a2data.dataset.batch_plan.plan.
        prefetch: samples that each worker reads ahead.
        index: name of the index file; by default that of the view.
        sound_hz: sample rate of the sound of each sample, view "raw"; 0 for none.
        limits: limits of a sample, see a2data.dataset.decode.Limits.

    Raises:
        FileNotFoundError: an index or tar is missing.
        ValueError: a tar is truncated, an index disagrees with its tar, or the settings yield no batch or batches that cannot be
            divided by the number of ranks.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        seed: int,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        buckets: Sequence[Bucket] | Sequence[Phase] | None = None,
        view: str = "raw",
        shape: Callable[..., np.ndarray] | None = None,
        augmentation: Augmentation | None = None,
        weight: Callable[[pa.Table], np.ndarray] | None = None,
        max_tokens: int | None = None,
        tail: str = "drop",
        prefetch: int = 2,
        index: str = "",
        limits: Limits = LIMITS,
        sound_hz: int = 0,
    ):
        if view not in VIEWS:
            raise ValueError(f"view is {view!r}; the views are {', '.join(VIEWS)}")
        folders = [shards] if isinstance(shards, str | os.PathLike) else list(shards)
        self.index = tars.read_index(folders, index or VIEWS[view], weight is not None, limits.max_bytes)
        weights = None if weight is None else np.asarray(weight(self.index.table), np.float64)
        if isinstance(shards, Mapping):
            weights = mixture_weights(self.index, dict(enumerate(shards.values())), weights)
        augmentation = augmentation or Augmentation()
        self.plan = plan(
            self.index.shape,
            phases(buckets),
            seed=seed,
            global_batch_size=global_batch_size,
            weights=weights,
            usable=rows_with_roles(self.index, augmentation.roles),
            max_tokens=max_tokens,
            tail=tail,
            data=self.index.digest,
        )
        check_ranks(self.plan, rank, world_size)
        decode = Decode(
            view, seed, shape or center_crop_resize, augmentation, 1 if num_workers else 0, limits, sound_hz
        )
        self.reader = Reader(Tars(self.index.without_table()), self.plan, rank, world_size, decode)
        self.num_workers, self.prefetch, self.step = num_workers, prefetch, 0
        self.corrupt_samples: dict[str, str] = {}  # key of an unreadable sample -> error

    def batch(self, step: int) -> list[Sample]:
        """Return this rank's part of the batch of any step, without changing the state."""
        return next(group_by_batch(self.reader.samples(self.reader.slots(step))))

    def __iter__(self) -> Iterator[list[Sample]]:
        """Iterate from the current step. In a worker of an external DataLoader, yield every n-th batch."""
        info = get_worker_info()
        if info is not None:
            yield from group_by_batch(self.reader.samples(self.reader.slots(self.step, info.id, info.num_workers)))
        step = self.step
        for samples in group_by_batch(self.stream(step)):
            if self.step != step:
                raise RuntimeError(
                    "the step of the loader was changed during the iteration, by load_state_dict or another iterator: start a "
                    "new iteration"
                )
            for sample in samples:
                self.record_replaced(sample)
            step = self.step = step + 1
            yield samples

    def stream(self, step: int) -> Iterator[tuple[Sample, bool]]:
        if not self.num_workers:
            yield from self.reader.samples(self.reader.slots(step))
            return
        remote = not all(folder.local for folder in self.index.folders)
        workers = DataLoader(
            Stream(self.reader, step),
            batch_size=None,
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch,
            multiprocessing_context="spawn" if remote else None,  # object store clients do not survive a fork
            generator=torch.Generator(),  # keeps torch's global generator unchanged by the number of restarts
        )
        for item, last in workers:
            if isinstance(item, Exception):
                raise item
            yield item.sample(), last

    def record_replaced(self, sample: Sample) -> None:
        for key, error in sample.replaced.items():
            if key not in self.corrupt_samples:
                log.warning("skipped corrupt sample: %s", error)
            self.corrupt_samples[key] = error

    def state_dict(self, after: list[Sample] | None = None) -> dict[str, Any]:
        """Return the state after the batches yielded so far, or after the batch `after`, for an external DataLoader."""
        epoch, number = self.plan.position(after[0].step + 1 if after else self.step)
        return {"epoch": epoch, "batch": number, "plan": self.plan.digest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, with any number of ranks and workers; the next iteration starts there.

        Raises ValueError if the data or the settings that determine the order differ from those of the state.
        """
        check_state(state)
        data, settings = state["plan"].split("-")
        own_data, own_settings = self.plan.digest.split("-")
        paths = ", ".join(folder.root for folder in self.index.folders)
        if data != own_data:
            raise ValueError(
                f"the state belongs to other data (index {data}) than that in {paths} (index {own_data}): resume with the "
                "original data, or start over on this data without the loader's state"
            )
        if settings != own_settings:
            raise ValueError(
                "the state was taken with another seed, global_batch_size, max_tokens, tail, weights, roles or buckets, which "
                "changes the order of samples: use the same settings, or start over without the loader's state"
            )
        step = self.plan.step(state["epoch"], state["batch"])
        if self.plan.position(step) != (state["epoch"], state["batch"]):
            raise ValueError(
                f"the state is damaged: it has batch {state['batch']} of epoch {state['epoch']}, which has fewer batches"
            )
        self.step = step


def check_state(state: Any) -> None:
    """Raise ValueError for a state that `Loader.state_dict` cannot return."""
    numbers = [state.get(name) for name in ("epoch", "batch")] if isinstance(state, Mapping) else []
    if (
        not numbers
        or any(type(number) is not int or not 0 <= number <= MAX_POSITION for number in numbers)
        or not isinstance(state.get("plan"), str)
        or state["plan"].count("-") != 1
    ):
        raise ValueError(
            f"{str(state)[:200]} is not a state of the loader, which has integers epoch and batch and the hash plan: "
            "pass the return value of state_dict()"
        )


def group_by_batch(stream: Iterator[tuple[Sample, bool]]) -> Iterator[list[Sample]]:
    """Group samples, each with a flag that marks the last of its batch, into batches."""
    samples = list[Sample]()
    for sample, last in stream:
        samples.append(sample)
        if last:
            yield samples
            samples = []


def phases(buckets: Sequence[Bucket] | Sequence[Phase] | None) -> list[Phase]:
    """Return the phases; buckets alone form a single phase. Plain tuples (frames, height, width) are accepted as buckets."""
    items: list[Any] = list(standard_buckets() if buckets is None else buckets)
    if not items:
        raise ValueError(
            "buckets is empty: give frames, height and width of at least one, or None for the standard buckets"
        )
    curriculum: list[Any] = items if isinstance(items[0], Phase) else [Phase(items, 1)]
    return [Phase([Bucket(*bucket) for bucket in phase.buckets], phase.steps) for phase in curriculum]


def check_ranks(plan: Plan, rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}, but must be from 0 to world_size - 1 ({world_size - 1})")
    for phase in plan.phase_plans:
        for bucket, size in zip(phase.buckets, phase.size, strict=True):
            if size % world_size:
                raise ValueError(
                    f"a batch of {size} videos of {bucket} cannot be divided evenly among {world_size} ranks"
                )
