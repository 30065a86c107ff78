"""Batch plan: the samples of every batch as a pure function of seed, epoch, index, buckets and batch size.

The plan is independent of ranks, workers, files and torch: each rank takes a slice of every batch, and a position in the order is
a single number, the step. Randomness comes from Philox (Salmon et al., SC 2011), a counter-based generator: every choice has its
own key and does not depend on earlier choices, so a run can resume from any step without replay. Orders use only Philox's raw
output, whose stream numpy keeps stable between releases.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

# Sizes of the Wan2.1 family and their quarter, (height, width) in pixels. Sides are multiples of 16, the side of a token.
SIZES_PX = {
    "256p": [(256, 448), (448, 256), (336, 336), (288, 384), (384, 288)],
    "480p": [(480, 832), (832, 480), (624, 624), (544, 704), (704, 544)],
    "540p": [(544, 960), (960, 544), (720, 720), (624, 832), (832, 624)],
    "720p": [(720, 1280), (1280, 720), (960, 960), (832, 1088), (1088, 832)],
}


class Bucket(NamedTuple):
    """Shape of all videos of a batch."""

    frames: int
    height: int  # px
    width: int

    @property
    def tokens(self) -> int:
        """Tokens of a Wan transformer: one for each 4 x 16 x 16 pixels; the first frame is encoded separately."""
        return (1 + (self.frames - 1) // 4) * (self.height // 16) * (self.width // 16)

    def __str__(self) -> str:
        return f"{self.frames} x {self.height} x {self.width}"


class Phase(NamedTuple):
    """A phase of a curriculum: buckets used for a number of steps. The last phase never ends, whatever its steps."""

    buckets: Sequence[Bucket]
    steps: int


def standard_buckets(
    max_tokens: int = 32_760, frames: Sequence[int] = (81, 61, 41, 21), sizes: Sequence[str] = tuple(SIZES_PX)
) -> list[Bucket]:
    """Return every combination of `frames` and `sizes` with at most max_tokens per video (32,760: 81 x 480 x 832)."""
    combinations = [Bucket(f, h, w) for f in frames for size in sizes for h, w in SIZES_PX[size]]
    return [bucket for bucket in combinations if bucket.tokens <= max_tokens]


def rng(seed: int, epoch: int, sample: int | str, purpose: str) -> np.random.Generator:
    """Return the random generator of one purpose for one sample of one epoch. All randomness comes from here.

    sample: identifies the sample in its epoch: `Sample.index` or any key. Equal arguments give equal numbers on every rank and
    machine; different arguments give independent numbers.

    >>> rng(0, 1, 7, "noise").random() == rng(0, 1, 7, "noise").random()
    True
    """
    return np.random.Generator(philox(seed, epoch, sample, purpose))


def philox(*key: int | str) -> np.random.Philox:
    words = [part if isinstance(part, str) else int(part) for part in key]
    digest = hashlib.blake2b(json.dumps(words).encode(), digest_size=16).digest()
    return np.random.Philox(key=int.from_bytes(digest, "little"))


def permutation(count: int, *key: int | str) -> np.ndarray:
    """Return 0 to count - 1 in an order determined by the key alone, int64."""
    bits = np.uint64(int(count).bit_length())
    numbered = philox(*key).random_raw(count) >> bits << bits | np.arange(count, dtype=np.uint64)
    # without ties, every sorting algorithm gives the same result
    return (np.sort(numbered) & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


def assign(frames: np.ndarray, height: np.ndarray, width: np.ndarray, buckets: Sequence[Bucket]) -> np.ndarray:
    """Return the number of each clip's bucket, (n,) int16; -1 if none fits.

    A clip fits a bucket that it fills without upscaling or repetition. Among the buckets that fit, it gets the one that shows the
    most of it: frames x height x width x the fraction of the picture left after a crop to the bucket's aspect ratio. Ties go to
    the first bucket.
    """
    codes = np.ascontiguousarray((frames << 40) | (height << 20) | width, np.int64)
    # pa.array would import pandas
    array = pa.Array.from_buffers(pa.int64(), len(codes), [None, pa.py_buffer(codes)])
    shapes = array.dictionary_encode()  # a million clips have few distinct shapes
    code = np.from_dlpack(shapes.dictionary).astype(np.int64)
    f, h, w = code >> 40, (code >> 20) & 0xFFFFF, code & 0xFFFFF
    best, largest = np.full(len(code), -1, np.int16), np.zeros(len(code))
    for number, bucket in enumerate(buckets):
        aspect = (bucket.width * h) / (bucket.height * w)
        area = bucket.frames * bucket.height * bucket.width * np.minimum(aspect, 1 / aspect)
        better = (bucket.frames <= f) & (bucket.height <= h) & (bucket.width <= w) & (area > largest)
        best[better], largest[better] = number, area[better]
    return best[np.from_dlpack(shapes.indices)]


class Batch(NamedTuple):
    """A global batch over all ranks."""

    step: int  # number of the batch over all epochs, from 0
    epoch: int
    number: int  # number of the batch in its epoch, from 0
    first: int  # index of the first sample; indices count the samples of the epoch and are unique in it
    bucket: Bucket
    rows: np.ndarray  # (samples,) int64, rows of the index; with weights a row may occur several times in an epoch


@dataclass(frozen=True)
class PhasePlan:
    """Plan of a phase over a data set: the samples and batch size of each bucket."""

    buckets: list[Bucket]
    rows: list[np.ndarray]  # of each bucket, ascending
    weights: list[np.ndarray] | None  # of those rows; None if all are 1
    size: list[int]  # samples per batch
    batches: list[int]  # batches per epoch
    first_step: int
    first_epoch: int

    @property
    def length(self) -> int:
        """Batches per epoch."""
        return sum(self.batches)

    def order(self, seed: int, epoch: int, number: int) -> np.ndarray:
        """Return the rows of a bucket in the order of an epoch, (size * batches,).

        A row of weight w occurs w times on average, and floor(w) or ceil(w) times in each epoch: systematic sampling along the
        cumulative weights keeps the number of samples constant. An incomplete last batch is filled with rows from the front.
        """
        rows = self.rows[number]
        order = permutation(len(rows), seed, epoch, number, "order")
        if self.weights is not None:
            total = np.cumsum(self.weights[number][order])
            count = int(total[-1] + 1e-6)
            start = philox(seed, epoch, number, "start").random_raw() / 2**64
            points = (start + np.arange(count)) * (total[-1] / max(count, 1))
            chosen = np.minimum(np.searchsorted(total, points, side="right"), len(rows) - 1)
            order = order[chosen][permutation(len(chosen), seed, epoch, number, "again")]
        return np.resize(rows[order], self.size[number] * self.batches[number])

    def epoch(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Return the bucket of each batch, its number among the batches of that bucket, and the order of each bucket's rows."""
        bucket_of_batch = np.repeat(np.arange(len(self.batches)), self.batches)
        bucket_of_batch = bucket_of_batch[permutation(len(bucket_of_batch), seed, epoch, "turns")]
        first_of_bucket = np.cumsum([0, *self.batches])[:-1]
        number_in_bucket = np.empty(len(bucket_of_batch), np.int64)
        numbers = np.arange(len(bucket_of_batch)) - np.repeat(first_of_bucket, self.batches)
        number_in_bucket[np.argsort(bucket_of_batch, kind="stable")] = numbers
        return bucket_of_batch, number_in_bucket, [self.order(seed, epoch, n) for n in range(len(self.buckets))]


@dataclass(frozen=True)
class Plan:
    """Plan of every batch of a training run."""

    seed: int
    phase_plans: list[PhasePlan]
    # of everything that determines the plan: "<hash of the data>-<hash of seed, buckets, sizes, weights>"
    digest: str = field(compare=False)
    # reason -> number of samples of the index that are not in any batch of the first phase
    skipped: dict[str, int] = field(compare=False)

    def phase_at(self, step: int) -> PhasePlan:
        return self.phase_plans[bisect_right([s.first_step for s in self.phase_plans], step) - 1]

    def position(self, step: int) -> tuple[int, int]:
        """Return the epoch of a step and its number in that epoch."""
        phase = self.phase_at(step)
        epoch, number = divmod(step - phase.first_step, phase.length)
        return phase.first_epoch + epoch, number

    def step(self, epoch: int, number: int) -> int:
        """Return the step of a batch of an epoch; the inverse of `position`."""
        phase = self.phase_plans[bisect_right([s.first_epoch for s in self.phase_plans], epoch) - 1]
        return phase.first_step + (epoch - phase.first_epoch) * phase.length + number

    def batches(self, step: int = 0) -> Iterator[Batch]:
        """Yield the batches from a step on, without end. An epoch is planned when its first batch is requested."""
        planned_epoch = -1
        while True:
            phase, (epoch, number) = self.phase_at(step), self.position(step)
            if epoch != planned_epoch:
                bucket_of_batch, number_in_bucket, orders = phase.epoch(self.seed, epoch)
                sizes = np.array(phase.size)[bucket_of_batch]
                firsts, planned_epoch = np.cumsum(sizes) - sizes, epoch
            bucket, size = bucket_of_batch[number], phase.size[bucket_of_batch[number]]
            rows = orders[bucket][number_in_bucket[number] * size : (number_in_bucket[number] + 1) * size]
            yield Batch(step, epoch, number, int(firsts[number]), phase.buckets[bucket], rows)
            step += 1

    def replacement(self, batch: Batch, index: int, attempt: int) -> int:
        """Return the row of the same bucket that replaces an unreadable sample. index: that of the sample in its epoch."""
        phase = self.phase_at(batch.step)
        rows = phase.rows[phase.buckets.index(batch.bucket)]
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
    """Return the plan of a training run.

    Args:
        shape: frames, height, width of each clip of the index, (n,) int64 each.
        phases: phases of the curriculum.
        global_batch_size: samples per batch over all ranks.
        max_tokens: limit of tokens per batch; buckets that would exceed it get batches smaller by a power of two, so that the
            same ranks can still divide them.
        weights: (n,), average number of uses of each sample per epoch; None for 1.
        usable: (n,) bool; False for samples that are never used.
        tail: treatment of a bucket's last samples that do not fill a batch: "drop" drops them (different ones in each epoch),
            "fill" completes the batch with samples from the front of the epoch.
        data: hash of the data.

    Raises ValueError if the plan has no batch, and for invalid settings.
    """
    if global_batch_size < 1 or tail not in ("drop", "fill") or not phases:
        raise ValueError(
            f"global_batch_size is {global_batch_size}, tail is {tail!r}, with {len(phases)} phases: global_batch_size and the "
            "number of phases must be at least 1, and tail 'drop' or 'fill'"
        )
    if weights is not None:
        check_weights(weights, len(shape[0]))
    phase_plans: list[PhasePlan] = []
    first_step = first_epoch = 0
    for phase in phases:
        sizes = [batch_size(bucket, global_batch_size, max_tokens) for bucket in phase.buckets]
        phase_plan = pack_batches(shape, phase, sizes, weights, usable, tail, first_step, first_epoch)
        phase_plans.append(phase_plan)
        first_step += phase.steps
        first_epoch += -(-phase.steps // phase_plan.length)
    if any(phase.steps < 1 for phase in phases[:-1]):
        raise ValueError("every phase except the last must have at least one step")
    settings: list[Any] = [seed, global_batch_size, max_tokens, tail, [(list(p.buckets), p.steps) for p in phases[:-1]]]
    settings_hash = hashlib.blake2b(json.dumps([*settings, list(phases[-1].buckets)]).encode(), digest_size=8)
    for array in (weights, usable):
        settings_hash.update(b"|" if array is None else array.astype(np.float64).tobytes())
    return Plan(
        seed,
        phase_plans,
        f"{data}-{settings_hash.hexdigest()}",
        count_skipped(len(shape[0]), phase_plans[0], weights, usable),
    )


def check_weights(weights: np.ndarray, count: int) -> None:
    if weights.shape != (count,):
        raise ValueError(f"weights must have the shape ({count},), one per row of the index, not {weights.shape}")
    invalid = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(invalid):
        raise ValueError(
            f"weights must be finite and not negative: row {invalid[0]} of the index has {weights[invalid[0]]}, and "
            f"{len(invalid) - 1} more rows are invalid"
        )


def batch_size(bucket: Bucket, global_batch_size: int, max_tokens: int | None) -> int:
    """Return the number of samples in a batch: global_batch_size, halved until the batch has at most max_tokens."""
    size = global_batch_size
    while max_tokens is not None and size * bucket.tokens > max_tokens:
        if size % 2:
            raise ValueError(
                f"a batch of {size} videos of {bucket} has {size * bucket.tokens} tokens, more than max_tokens ({max_tokens}): "
                "raise it, remove the bucket, or make global_batch_size a larger power of two"
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
    """Return the plan of a phase over the clips. Raises ValueError if it has no batch."""
    if len(set(phase.buckets)) != len(phase.buckets) or any(min(bucket) < 1 for bucket in phase.buckets):
        raise ValueError(
            f"buckets must be distinct and have frames, height and width of at least 1: {[str(b) for b in phase.buckets]}"
        )
    bucket_of = assign(*shape, phase.buckets)
    if usable is not None:
        bucket_of[~usable] = -1
    if weights is not None:
        bucket_of[weights == 0] = -1
    first_of_bucket = np.searchsorted(np.sort(bucket_of), np.arange(len(phase.buckets)))
    by_bucket = np.split(np.argsort(bucket_of, kind="stable"), first_of_bucket)[1:]
    total_weight = [float(len(rows)) if weights is None else float(weights[rows].sum()) + 1e-6 for rows in by_bucket]
    num_batches = [int(a // n) if tail == "drop" else -(-int(a) // n) for a, n in zip(total_weight, sizes, strict=True)]
    if not any(num_batches):
        largest = max(total_weight, default=0)
        raise ValueError(
            f"{len(shape[0])} samples do not fill a batch of {sizes[0] if sizes else 0}: the fullest of the buckets "
            f"{', '.join(map(str, phase.buckets))} has {largest:.0f}. Samples are not upscaled: add smaller buckets, reduce "
            "global_batch_size, or set tail='fill' to repeat samples"
        )
    used = [n for n, count in enumerate(num_batches) if count]
    return PhasePlan(
        [phase.buckets[n] for n in used],
        [by_bucket[n] for n in used],
        None if weights is None else [weights[by_bucket[n]] for n in used],
        [sizes[n] for n in used],
        [num_batches[n] for n in used],
        first_step,
        first_epoch,
    )


def count_skipped(
    count: int, phase_plan: PhasePlan, weights: np.ndarray | None, usable: np.ndarray | None
) -> dict[str, int]:
    """Return how many samples are never in a batch, by reason."""
    unusable = 0 if usable is None else int((~usable).sum())
    unused = 0 if weights is None else int((weights == 0).sum() if usable is None else ((weights == 0) & usable).sum())
    no_bucket = count - unusable - unused - sum(len(rows) for rows in phase_plan.rows)
    reasons = {"no reference": unusable, "weight 0": unused, "fits no bucket, or one that fills no batch": no_bucket}
    return {reason: n for reason, n in reasons.items() if n}
