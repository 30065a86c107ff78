"""Packed shards -> samples for training: the same samples in the same order on any number of ranks and workers, from any step on.

    loader = Loader("shards", seed=0, global_batch_size=256, rank=rank, world_size=world_size, num_workers=4,
    buckets=[Bucket(81, 480, 832)]) for samples in loader:          # this rank's share of a global batch, for ever
        train(samples)
        save(loader.state_dict())   # what was consumed, whatever the workers have read ahead

What comes when is decided in a2data.dataset.batch_plan, where it lies in a2data.dataset.reader. This file and what imports it
need torch.
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
ATTEMPTS = 16  # to replace a sample, before the data set is taken to be broken
AHEAD = 8  # samples that are read before the first is decoded; behind a URL, ranged reads at a time
MAX_PLACE = 1 << 40  # epochs, and batches of one
AHEAD_BYTES = 1 << 28  # or fewer, where they are large
Shards = str | os.PathLike | Sequence[str | os.PathLike] | Mapping[str, float]


class Slot(NamedTuple):
    """A place in a global batch."""

    batch: Batch
    place: int
    last: bool  # of its rank in this batch

    @property
    def number(self) -> int:
        """`Sample.index`."""
        return self.batch.first + self.place


class Reader:
    """One rank's samples, one by one: what a worker process holds."""

    def __init__(self, tars: Tars, plan: Plan, rank: int, ranks: int, decode: Callable[..., Sample]):
        self.tars, self.plan, self.rank, self.ranks, self.decode = tars, plan, rank, ranks, decode
        # samples that are read before the first of them is taken apart
        self.ahead = min(AHEAD, max(1, AHEAD_BYTES // int(tars.index.bytes.max())))

    def slots(self, step: int, first: int = 0, every: int = 1) -> Iterator[Slot]:
        """This rank's contiguous share of every batch from a step on; or of every n-th, beginning with the first-th."""
        for batch in itertools.islice(self.plan.batches(step), first, None, every):
            share = len(batch.rows) // self.ranks
            begin, end = self.rank * share, (self.rank + 1) * share
            yield from (Slot(batch, place, place == end - 1) for place in range(begin, end))

    def samples(self, slots: Iterator[Slot]) -> Iterator[tuple[Sample, bool]]:
        """The sample of each slot, and whether it is the last of its batch.

        Several are read before the first of them is taken apart: a read leaves nothing else in the processor's caches.
        """
        if all(folder.local for folder in self.tars.index.folders):
            while some := list(itertools.islice(slots, self.ahead)):
                pieces = [self.tars.read(int(slot.batch.rows[slot.place])) for slot in some]
                for slot in some:
                    yield self.sample(slot, pieces.pop(0)), slot.last
            return
        with ThreadPoolExecutor(AHEAD) as pool:
            reads = ((slot, pool.submit(self.tars.read, int(slot.batch.rows[slot.place]))) for slot in slots)
            ahead = list(itertools.islice(reads, AHEAD))
            while ahead:
                slot, read = ahead.pop(0)
                yield self.sample(slot, read.result()), slot.last
                ahead += itertools.islice(reads, 1)

    def members(self, row: int, piece: memoryview) -> dict[str, memoryview]:
        """Extension -> bytes. Raises CorruptError for a damaged header, LookupError where the tar is of another index."""
        try:
            return tars.members(piece, self.tars.index.key(row), self.tars.index.where(row))
        except LookupError as error:
            if not self.tars.has_neighbours_of(row):
                raise
            raise CorruptError("does not begin where the index says, as others of its tar do: it is damaged") from error
        except ValueError as error:
            raise CorruptError(str(error)) from error

    def shape(self, row: int) -> Shape:
        index = self.tars.index
        frames, height, width = (int(column[row]) for column in index.shape)
        return Shape(frames, height, width, int(index.references[row]))

    def sample(self, slot: Slot, piece: memoryview) -> Sample:
        """The sample of a slot; where it is corrupt another one of its bucket, the same on every rank and in every run."""
        index, row, broken = self.tars.index, int(slot.batch.rows[slot.place]), dict[str, str]()
        for attempt in range(ATTEMPTS):
            key = index.key(row)
            try:
                made = self.decode(self.members(row, piece), slot.batch, slot.number, row, key, self.shape)
                return replace(made, replaced=broken) if broken else made
            except CorruptError as error:
                broken[key] = f"{key} in {index.where(row)}: {error}"
            row = self.plan.replacement(slot.batch, slot.number, attempt)
            piece = self.tars.read(row)
        some = "; ".join(list(broken.values())[:3])
        raise ValueError(
            f"{ATTEMPTS} samples in turn cannot be read: {some}: copy the data set again, or pack it again"
        )


class Stream(IterableDataset):
    """A rank's samples as torch's workers hand them on: every n-th, its arrays in one piece of shared memory."""

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
        except Exception as error:  # as a value: torch would bury the sentence in a traceback of the worker
            yield error, True


class Loader(IterableDataset):
    """Lists of samples: one rank's share of each global batch, epoch after epoch, without end.

    shards: the folder or URL that `pack` wrote; several; or a mapping of them to their shares of an epoch.
    seed: of every random choice. global_batch_size: samples in a batch of all ranks together. rank, world_size: which
    contiguous part of each batch this process gets. num_workers: processes that read and decode; 0 for none.
    buckets: the shapes of batches, or the phases of a curriculum; None for `standard_buckets()`, A2's 81 x 480 x 832 the largest.
    view: "raw" decodes the mp4 and the pictures; "encoded" reads tensors by encoded.parquet; "bytes" decodes nothing.
    shape: (frames of the right number, an iterator of (h, w, 3) uint8; bucket; generator) -> (t, height, width, 3); or `cover`.
    chances: what is dropped and chosen at random. weight: the index as a table -> (n,), how often each sample occurs in an epoch.
    max_tokens, tail: see a2data.dataset.batch_plan.plan. prefetch: samples that each worker reads ahead. index: the file to
    read by. limits: what a sample may have at most, see a2data.dataset.decode.Limits.

    Raises FileNotFoundError for a missing index or tar, ValueError for a tar that is cut off, an index that disagrees with its
    tar, settings that give no batch or cannot be divided by the ranks.
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
        chances: Augmentation | None = None,
        weight: Callable[[pa.Table], np.ndarray] | None = None,
        max_tokens: int | None = None,
        tail: str = "drop",
        prefetch: int = 2,
        index: str = "",
        limits: Limits = LIMITS,
    ):
        if view not in VIEWS:
            raise ValueError(f"view is {view!r}; the views are {', '.join(VIEWS)}")
        folders = [shards] if isinstance(shards, str | os.PathLike) else list(shards)
        self.index = tars.read_index(folders, index or VIEWS[view], weight is not None, limits.max_bytes)
        weights = None if weight is None else np.asarray(weight(self.index.table), np.float64)
        if isinstance(shards, Mapping):
            weights = mixture_weights(self.index, dict(enumerate(shards.values())), weights)
        chances = chances or Augmentation()
        self.plan = plan(
            self.index.shape,
            phases(buckets),
            seed=seed,
            global_batch_size=global_batch_size,
            weights=weights,
            usable=rows_with_roles(self.index, chances.roles),
            max_tokens=max_tokens,
            tail=tail,
            data=self.index.digest,
        )
        check_ranks(self.plan, rank, world_size)
        decode = Decode(view, seed, shape or center_crop_resize, chances, 1 if num_workers else 0, limits)
        self.reader = Reader(Tars(self.index.without_table()), self.plan, rank, world_size, decode)
        self.num_workers, self.prefetch, self.step = num_workers, prefetch, 0
        self.set_aside: dict[str, str] = {}  # samples that could not be read, by key, and why

    def batch(self, step: int) -> list[Sample]:
        """This rank's share of the batch of any step; nothing else changes."""
        return next(gathered(self.reader.samples(self.reader.slots(step))))

    def __iter__(self) -> Iterator[list[Sample]]:
        """From where the loader stands. In a worker of somebody else's DataLoader: every n-th batch."""
        info = get_worker_info()
        if info is not None:
            yield from gathered(self.reader.samples(self.reader.slots(self.step, info.id, info.num_workers)))
        step = self.step
        for samples in gathered(self.stream(step)):
            if self.step != step:
                raise RuntimeError("the loader was set to another step, or is read elsewhere: begin a new iteration")
            for sample in samples:
                self.note(sample)
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
            multiprocessing_context="spawn" if remote else None,  # clients of object stores do not survive a fork
            generator=torch.Generator(),  # leaves torch's own alone: training must not depend on how often we begin
        )
        for sent, last in workers:
            if isinstance(sent, Exception):
                raise sent
            yield sent.sample(), last

    def note(self, sample: Sample) -> None:
        for key, why in sample.replaced.items():
            if key not in self.set_aside:
                log.warning("set aside: %s", why)
            self.set_aside[key] = why

    def state_dict(self, after: list[Sample] | None = None) -> dict[str, Any]:
        """Where to go on: after the batches that were given out, or after this one, for somebody else's DataLoader."""
        epoch, number = self.plan.place(after[0].step + 1 if after else self.step)
        return {"epoch": epoch, "batch": number, "plan": self.plan.digest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken, with any ranks and workers; the next iteration begins there.

        Raises ValueError where the data or the settings that decide the order are not those of the state.
        """
        check_state(state)
        data, settings = state["plan"].split("-")
        mine, ours = self.plan.digest.split("-")
        where = ", ".join(folder.root for folder in self.index.folders)
        if data != mine:
            raise ValueError(
                f"the state was taken over other data (index {data}) than now lies in {where} (index {mine}): a run goes on over "
                "the data it began with; without the loader's state it begins anew over these"
            )
        if settings != ours:
            raise ValueError(
                "the state was taken with another seed, global_batch_size, max_tokens, tail, weights, roles or buckets: "
                "the order of samples would be another one. Give the same, or begin anew without the loader's state"
            )
        step = self.plan.step(state["epoch"], state["batch"])
        if self.plan.place(step) != (state["epoch"], state["batch"]):
            raise ValueError(
                f"the state says batch {state['batch']} of epoch {state['epoch']}, which has fewer: it is damaged"
            )
        self.step = step


def check_state(state: Any) -> None:
    """Raises ValueError for what `Loader.state_dict` never gives."""
    numbers = [state.get(name) for name in ("epoch", "batch")] if isinstance(state, Mapping) else []
    if (
        not numbers
        or any(type(number) is not int or not 0 <= number <= MAX_PLACE for number in numbers)
        or not isinstance(state.get("plan"), str)
        or state["plan"].count("-") != 1
    ):
        raise ValueError(
            f"{str(state)[:200]} is not a state of the loader, which has whole numbers epoch and batch, and the hash plan: "
            "give what state_dict() returned"
        )


def gathered(stream: Iterator[tuple[Sample, bool]]) -> Iterator[list[Sample]]:
    """Samples and whether each is the last of its batch -> batches."""
    samples = list[Sample]()
    for sample, last in stream:
        samples.append(sample)
        if last:
            yield samples
            samples = []


def phases(buckets: Sequence[Bucket] | Sequence[Phase] | None) -> list[Phase]:
    """A curriculum of one phase, where buckets are given. Plain tuples of frames, height, width are buckets too."""
    given: list[Any] = list(standard_buckets() if buckets is None else buckets)
    if not given:
        raise ValueError(
            "there is no bucket: give frames, height and width of one at least, or None for the standard ones"
        )
    curriculum: list[Any] = given if isinstance(given[0], Phase) else [Phase(given, 1)]
    return [Phase([Bucket(*bucket) for bucket in phase.buckets], phase.steps) for phase in curriculum]


def check_ranks(plan: Plan, rank: int, ranks: int) -> None:
    if not 0 <= rank < ranks:
        raise ValueError(f"rank is {rank} of {ranks}: ranks count from 0")
    for stretch in plan.phase_plans:
        for bucket, size in zip(stretch.buckets, stretch.size, strict=True):
            if size % ranks:
                raise ValueError(f"a batch of {size} videos of {bucket} cannot be shared by {ranks} ranks alike")
