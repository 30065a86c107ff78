"""Which samples make which batch: a pure function of seed, epoch, index, buckets and batch size.

Nothing here knows of ranks, workers, files or torch: a rank takes a slice of each batch, and a place in the order is one number,
the step. Randomness comes from Philox (Salmon et al., SC 2011), a counter-based generator: every choice has a key of its own and
depends on no choice before it, so that nothing needs to be replayed to go on anywhere. Orders are made of Philox's raw output
alone, whose stream numpy keeps from release to release.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

# Sizes of the Wan2.1 family, (height, width) in pixels, and their quarter: sides are multiples of 16, a token's side.
SIZES_PX = {
    "256p": [(256, 448), (448, 256), (336, 336), (288, 384), (384, 288)],
    "480p": [(480, 832), (832, 480), (624, 624), (544, 704), (704, 544)],
    "540p": [(544, 960), (960, 544), (720, 720), (624, 832), (832, 624)],
    "720p": [(720, 1280), (1280, 720), (960, 960), (832, 1088), (1088, 832)],
}


class Bucket(NamedTuple):
    """The shape that all videos of a batch have."""

    frames: int
    height: int  # px
    width: int

    @property
    def tokens(self) -> int:
        """Of a Wan transformer: one for 4 x 16 x 16 pixels, the first frame standing alone in time."""
        return (1 + (self.frames - 1) // 4) * (self.height // 16) * (self.width // 16)

    def __str__(self) -> str:
        return f"{self.frames} x {self.height} x {self.width}"


class Phase(NamedTuple):
    """A part of a curriculum: these buckets for so many steps; the last phase lasts for ever, whatever its steps."""

    buckets: Sequence[Bucket]
    steps: int


def standard_buckets(
    max_tokens: int = 32_760, frames: Sequence[int] = (81, 61, 41, 21), sizes: Sequence[str] = tuple(SIZES_PX)
) -> list[Bucket]:
    """Every size of `sizes` for every number of frames, where a video has at most max_tokens (32,760: 81 x 480 x 832)."""
    every = [Bucket(f, h, w) for f in frames for size in sizes for h, w in SIZES_PX[size]]
    return [bucket for bucket in every if bucket.tokens <= max_tokens]


def rng(seed: int, epoch: int, sample: int | str, purpose: str) -> np.random.Generator:
    """The one source of chance: the generator of one purpose for one sample of one epoch.

    sample: what tells samples of an epoch apart: `Sample.index`, or any key. The same four give the same numbers on every rank
    and machine, and any other four independent ones.

    >>> draw(0, 1, 7, "noise").random() == draw(0, 1, 7, "noise").random()
    True
    """
    return np.random.Generator(philox(seed, epoch, sample, purpose))


def philox(*key: int | str) -> np.random.Philox:
    words = [part if isinstance(part, str) else int(part) for part in key]
    digest = hashlib.blake2b(json.dumps(words).encode(), digest_size=16).digest()
    return np.random.Philox(key=int.from_bytes(digest, "little"))


def permutation(count: int, *key: int | str) -> np.ndarray:
    """0 to count - 1 in an order that the key alone decides, int64."""
    bits = np.uint64(int(count).bit_length())
    numbered = philox(*key).random_raw(count) >> bits << bits | np.arange(count, dtype=np.uint64)
    # no ties: any sort sorts them alike
    return (np.sort(numbered) & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


def assign(frames: np.ndarray, height: np.ndarray, width: np.ndarray, buckets: Sequence[Bucket]) -> np.ndarray:
    """The number of each clip's bucket, (n,) int16; -1 where none fits.

    A clip fits a bucket that it fills without being enlarged or repeated. Among those that fit it gets the one that shows the
    most of it: frames x height x width x the share of the picture that is left when it is cropped to the bucket's aspect.
    The first wins among equals.
    """
    every = np.ascontiguousarray((frames << 40) | (height << 20) | width, np.int64)
    # pa.array would import pandas first
    held = pa.Array.from_buffers(pa.int64(), len(every), [None, pa.py_buffer(every)])
    shapes = held.dictionary_encode()  # a million clips have few shapes
    code = np.from_dlpack(shapes.dictionary).astype(np.int64)
    f, h, w = code >> 40, (code >> 20) & 0xFFFFF, code & 0xFFFFF
    best, most = np.full(len(code), -1, np.int16), np.zeros(len(code))
    for number, bucket in enumerate(buckets):
        aspect = (bucket.width * h) / (bucket.height * w)
        worth = bucket.frames * bucket.height * bucket.width * np.minimum(aspect, 1 / aspect)
        better = (bucket.frames <= f) & (bucket.height <= h) & (bucket.width <= w) & (worth > most)
        best[better], most[better] = number, worth[better]
    return best[np.from_dlpack(shapes.indices)]


class Batch(NamedTuple):
    """A global batch: all ranks together."""

    step: int  # counts the batches from 0, whatever their epoch
    epoch: int
    number: int  # counts the batches of the epoch
    first: int  # index of the first sample; they count the samples of the epoch, so that none occurs twice
    bucket: Bucket
    rows: np.ndarray  # (samples,) int64, of the index; one may occur again in the same epoch, where weights say so


@dataclass(frozen=True)
class PhasePlan:
    """A phase over a data set: which samples it uses, in batches of which size."""

    buckets: list[Bucket]
    rows: list[np.ndarray]  # of each bucket, ascending
    weights: list[np.ndarray] | None  # of those; None where all are 1
    size: list[int]  # samples in a batch
    batches: list[int]  # in an epoch
    first_step: int
    first_epoch: int

    @property
    def length(self) -> int:
        """Batches in an epoch."""
        return sum(self.batches)

    def order(self, seed: int, epoch: int, number: int) -> np.ndarray:
        """The rows of a bucket in the order in which an epoch uses them, (size * batches,).

        A row of weight w occurs w times on average, and the whole numbers around w in each epoch: systematic sampling along the
        summed weights, so that the number of samples never changes. A last batch that is not full begins again at the front.
        """
        rows = self.rows[number]
        turn = permutation(len(rows), seed, epoch, number, "order")
        if self.weights is not None:
            total = np.cumsum(self.weights[number][turn])
            count = int(total[-1] + 1e-6)
            start = philox(seed, epoch, number, "start").random_raw() / 2**64
            points = (start + np.arange(count)) * (total[-1] / max(count, 1))
            picked = np.minimum(np.searchsorted(total, points, side="right"), len(rows) - 1)
            turn = turn[picked][permutation(len(picked), seed, epoch, number, "again")]
        return np.resize(rows[turn], self.size[number] * self.batches[number])

    def epoch(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """The bucket of each batch, how many batches of that bucket came before it, and the order of each bucket's rows."""
        turns = np.repeat(np.arange(len(self.batches)), self.batches)
        turns = turns[permutation(len(turns), seed, epoch, "turns")]
        begins = np.cumsum([0, *self.batches])[:-1]
        nth = np.empty(len(turns), np.int64)
        nth[np.argsort(turns, kind="stable")] = np.arange(len(turns)) - np.repeat(begins, self.batches)
        return turns, nth, [self.order(seed, epoch, n) for n in range(len(self.buckets))]


@dataclass(frozen=True)
class Plan:
    """Every batch of a training, from the first to any."""

    seed: int
    phase_plans: list[PhasePlan]
    # of all that decides it: "<hash of the data>-<hash of seed, buckets, sizes, weights>"
    digest: str = field(compare=False)
    # why samples of the index are in no batch -> how many, in the first phase
    skipped: dict[str, int] = field(compare=False)

    def stretch(self, step: int) -> PhasePlan:
        return self.phase_plans[bisect_right([s.first_step for s in self.phase_plans], step) - 1]

    def place(self, step: int) -> tuple[int, int]:
        """Epoch of a step, and its number in it."""
        stretch = self.stretch(step)
        epoch, number = divmod(step - stretch.first_step, stretch.length)
        return stretch.first_epoch + epoch, number

    def step(self, epoch: int, number: int) -> int:
        """The step at a place; the inverse of `place`."""
        stretch = self.phase_plans[bisect_right([s.first_epoch for s in self.phase_plans], epoch) - 1]
        return stretch.first_step + (epoch - stretch.first_epoch) * stretch.length + number

    def batches(self, step: int = 0) -> Iterator[Batch]:
        """From a step on, for ever. An epoch is planned when its first batch is asked for."""
        planned = -1
        while True:
            stretch, (epoch, number) = self.stretch(step), self.place(step)
            if epoch != planned:
                turns, nth, orders = stretch.epoch(self.seed, epoch)
                sizes = np.array(stretch.size)[turns]
                firsts, planned = np.cumsum(sizes) - sizes, epoch
            bucket, size = turns[number], stretch.size[turns[number]]
            rows = orders[bucket][nth[number] * size : (nth[number] + 1) * size]
            yield Batch(step, epoch, number, int(firsts[number]), stretch.buckets[bucket], rows)
            step += 1

    def replacement(self, batch: Batch, index: int, attempt: int) -> int:
        """The row that replaces a sample which cannot be read, by its index in the epoch: another one of its bucket."""
        stretch = self.stretch(batch.step)
        rows = stretch.rows[stretch.buckets.index(batch.bucket)]
        return int(rows[philox(self.seed, batch.epoch, index, f"instead {attempt}").random_raw() % len(rows)])


def plan(
    shape: tuple[np.ndarray, np.ndarray, np.ndarray],
    phases: Sequence[Phase],
    *,
    seed: int,
    global_batch_size: int,
    weights: np.ndarray | None = None,
    usable: np.ndarray | None = None,
    max_tokens: int | None = None,
    tail: str = "drop",
    data: str = "",
) -> Plan:
    """The plan of a training.

    shape: frames, height, width of each clip of the index, (n,) int64 each. phases: what is trained when.
    global_batch_size: samples in a batch of all ranks.
    max_tokens: of a batch; buckets whose global_batch_size would have more get batches that are smaller by a power of two, so
    that the same ranks still share them.
    weights: (n,), how often each sample is used in an epoch, on average; None for once. usable: (n,) bool, False for never.
    tail: what becomes of the samples of a bucket that fill no batch: "drop" leaves them out (others in each epoch), "fill" fills
    the batch up with samples from the front of the epoch.
    data: hash of what is read.
    Raises ValueError where no batch comes out, and for settings that make no sense.
    """
    if global_batch_size < 1 or tail not in ("drop", "fill") or not phases:
        raise ValueError(
            f"global_batch_size is {global_batch_size}, tail is {tail!r}: give at least 1, and 'drop' or 'fill'"
        )
    if weights is not None:
        check_weights(weights, len(shape[0]))
    stretches: list[PhasePlan] = []
    first_step = first_epoch = 0
    for phase in phases:
        sizes = [batch_size(bucket, global_batch_size, max_tokens) for bucket in phase.buckets]
        stretch = pack_batches(shape, phase, sizes, weights, usable, tail, first_step, first_epoch)
        stretches.append(stretch)
        first_step += phase.steps
        first_epoch += -(-phase.steps // stretch.length)
    if any(phase.steps < 1 for phase in phases[:-1]):
        raise ValueError("every phase but the last lasts at least one step")
    settings: list[Any] = [seed, global_batch_size, max_tokens, tail, [(list(p.buckets), p.steps) for p in phases[:-1]]]
    made = hashlib.blake2b(json.dumps([*settings, list(phases[-1].buckets)]).encode(), digest_size=8)
    for array in (weights, usable):
        made.update(b"|" if array is None else array.astype(np.float64).tobytes())
    return Plan(
        seed, stretches, f"{data}-{made.hexdigest()}", count_skipped(len(shape[0]), stretches[0], weights, usable)
    )


def check_weights(weights: np.ndarray, count: int) -> None:
    if weights.shape != (count,):
        raise ValueError(f"weights must be {count} numbers, one per row of the index, and not of shape {weights.shape}")
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        raise ValueError(
            f"weights must be finite numbers, none below 0: row {wrong[0]} of the index has {weights[wrong[0]]}, and so have "
            f"{len(wrong) - 1} more rows"
        )


def batch_size(bucket: Bucket, global_batch_size: int, max_tokens: int | None) -> int:
    """Samples of a batch: global_batch_size, halved until they have at most max_tokens."""
    size = global_batch_size
    while max_tokens is not None and size * bucket.tokens > max_tokens:
        if size % 2:
            raise ValueError(
                f"a batch of {size} videos of {bucket} has {size * bucket.tokens} tokens, max_tokens is {max_tokens}: "
                "raise it, leave the bucket out, or make global_batch_size a larger power of two"
            )
        size //= 2
    return size


def pack_batches(
    shape: tuple[np.ndarray, np.ndarray, np.ndarray],
    phase: Phase,
    sizes: list[int],
    weights: np.ndarray | None,
    usable: np.ndarray | None,
    tail: str,
    first_step: int,
    first_epoch: int,
) -> PhasePlan:
    """A phase over the clips. Raises ValueError where not one batch comes out of it."""
    if len(set(phase.buckets)) != len(phase.buckets) or any(min(bucket) < 1 for bucket in phase.buckets):
        raise ValueError(f"buckets must differ and have frames, height and width: {[str(b) for b in phase.buckets]}")
    of = assign(*shape, phase.buckets)
    if usable is not None:
        of[~usable] = -1
    if weights is not None:
        of[weights == 0] = -1
    by_bucket = np.split(np.argsort(of, kind="stable"), np.searchsorted(np.sort(of), np.arange(len(phase.buckets))))[1:]
    amount = [float(len(rows)) if weights is None else float(weights[rows].sum()) + 1e-6 for rows in by_bucket]
    whole = [int(a // n) if tail == "drop" else -(-int(a) // n) for a, n in zip(amount, sizes, strict=True)]
    if not any(whole):
        most = max(amount, default=0)
        raise ValueError(
            f"not one batch of {sizes[0] if sizes else 0} comes out of {len(shape[0])} samples: the fullest of the buckets "
            f"{', '.join(map(str, phase.buckets))} has {most:.0f}. Samples are not enlarged: add smaller buckets, make "
            "global_batch_size smaller, or let tail='fill' repeat samples"
        )
    used = [n for n, count in enumerate(whole) if count]
    return PhasePlan(
        [phase.buckets[n] for n in used],
        [by_bucket[n] for n in used],
        None if weights is None else [weights[by_bucket[n]] for n in used],
        [sizes[n] for n in used],
        [whole[n] for n in used],
        first_step,
        first_epoch,
    )


def count_skipped(
    count: int, stretch: PhasePlan, weights: np.ndarray | None, usable: np.ndarray | None
) -> dict[str, int]:
    """Why samples are never in a batch, and how many."""
    unusable = 0 if usable is None else int((~usable).sum())
    unused = 0 if weights is None else int((weights == 0).sum() if usable is None else ((weights == 0) & usable).sum())
    rest = count - unusable - unused - sum(len(rows) for rows in stretch.rows)
    why = {"no reference": unusable, "weight 0": unused, "fits no bucket, or one that fills no batch": rest}
    return {reason: n for reason, n in why.items() if n}
