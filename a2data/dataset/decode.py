"""What a trainer gets of a sample: the members of its tar decoded, cut to the shape of its batch, with what chance decides.

Torch is needed for the encoded view alone.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

from a2data.dataset.batch_plan import Batch, Bucket, rng
from a2data.dataset.triplet import ReferenceMeta, TripletMeta, to_facts
from a2data.media.images import MAX_PIXELS, from_png
from a2data.media.mp4 import frame_count


class CorruptError(ValueError):
    """A sample that cannot be read, although it lies where the index says."""


CODECS = {"h264", "hevc", "vp9", "av1", "libdav1d"}  # of the video in an mp4
MORE_PIXELS = 4  # all references of a sample may have so many times the pixels of one


class Limits(NamedTuple):
    """What a sample may have at most; one that has more is set aside. They bound the memory of a process that reads shards."""

    max_pixels: int = MAX_PIXELS  # height x width of a frame or a reference; 33.5 million: 8K
    max_frames: int = 10_000  # of a video
    max_bytes: int = 1 << 28  # in its tar; an index that has more is refused


LIMITS = Limits()


class Shape(NamedTuple):
    """What a row of the index says of its sample."""

    frames: int
    height: int  # px
    width: int
    references: int


class Augmentation(NamedTuple):
    """What is dropped and chosen at random, sample by sample: probabilities. A2 was trained with 0.3 and 0.1 for the drops."""

    caption_drop: float = 0.0  # the caption becomes ""
    short_caption: float = 0.0  # otherwise, the caption becomes the phrases of subjects and place alone
    reference_drop: float = 0.0  # there is no reference
    single_reference: float = 0.0  # otherwise, there is one reference, any of them
    max_references: int = 0  # no more than these, chosen at random; 0 for all
    shuffle: bool = False  # references in any order; else as packed: people, things …, the place last
    roles: tuple[str, ...] = ()  # only these; a sample that has none of them is in no batch. () for all


class Reference(NamedTuple):
    """A picture of somebody, something or some place that is in the video."""

    kind: str  # human, object, face, upper …, background
    picture: np.ndarray  # (h, w, 3) uint8 RGB; a subject stands on white, where it stood in its own frame
    name: str  # "ref0", "ref1" …, "bg": of its members
    phrase: str  # of the prompt, "" for none


@dataclass(frozen=True)
class Sample:
    """A triplet in a batch. Which fields have something in them depends on the view."""

    key: str
    step: int  # of the training
    epoch: int
    index: int  # counts the samples of the epoch: draw(seed, sample.epoch, sample.index, "noise")
    row: int  # of the index
    bucket: Bucket
    facts: TripletMeta | None = None  # the JSON; None in the view "bytes", and where an encoded sample has none
    captions: tuple[str, ...] = ()  # the prompt, and the phrases of its subjects and place
    caption: str = ""  # the one chosen; "" where dropped
    references: tuple[Reference, ...] = ()  # those chosen; pictures in the raw view only
    reference_names: tuple[str, ...] = ()  # their names, in every view that has facts
    video: np.ndarray | None = None  # raw: (t, height, width, 3) uint8 RGB
    tensors: Mapping[str, Any] = field(default_factory=dict)  # encoded: torch tensors by name
    members: Mapping[str, memoryview] = field(default_factory=dict)  # bytes: by extension
    replaced: Mapping[str, str] = field(default_factory=dict)  # key -> why, of the samples that this one replaces


@dataclass(frozen=True)
class Decode:
    """Members of a tar -> a sample, in one of the views."""

    view: str
    seed: int
    shape: Callable[[Iterator[np.ndarray], Bucket, np.random.Generator], np.ndarray]
    chances: Augmentation
    threads: int  # of the video decoder; 0 for as many as it likes
    limits: Limits = LIMITS

    def __call__(
        self,
        members: dict[str, memoryview],
        batch: Batch,
        index: int,
        row: int,
        key: str,
        shape_of: Callable[[int], Shape],
    ) -> Sample:
        """Decode the members of one sample.

        shape_of: what the index says of a row. Raises CorruptError for members that are missing, broken, or not what it says.
        """
        place = (key, batch.step, batch.epoch, index, row, batch.bucket)
        if self.view == "bytes":
            return Sample(*place, members=members)
        made = Sample(*place)
        if self.view == "raw" or "json" in members:
            made = self.tell(made, facts_of(members, key))
        if self.view == "encoded":
            return replace(made, tensors=tensors_of(members))
        assert made.facts is not None
        shape = shape_of(row)
        if len(made.facts.references) != shape.references:
            raise CorruptError(
                f"has {len(made.facts.references)} references in its .json, its row of the index says {shape.references}"
            )
        references = self.references(members, made)
        start = rng(self.seed, batch.epoch, index, "start").integers(shape.frames - batch.bucket.frames + 1)
        film = member(members, "mp4")
        shown = pictures(film, int(start), batch.bucket.frames, self.threads, shape[:3], self.limits)
        video = self.shape(shown, batch.bucket, rng(self.seed, batch.epoch, index, "crop"))
        return replace(made, references=references, video=video)

    def references(self, members: dict[str, memoryview], made: Sample) -> tuple[Reference, ...]:
        """The pictures that were chosen."""
        assert made.facts is not None
        given = {g.name: g for g in made.facts.references}
        if len(given) < len(made.facts.references):
            raise CorruptError("has two references of one name in its .json")
        found, left = list[Reference](), MORE_PIXELS * self.limits.max_pixels
        for name in made.reference_names:
            shown = picture(members, name, min(left, self.limits.max_pixels))
            left -= shown.shape[0] * shown.shape[1]
            found.append(Reference(given[name].role, shown, name, given[name].phrase))
        return tuple(found)

    def tell(self, made: Sample, facts: TripletMeta) -> Sample:
        """The sample with its facts, and what chance decides about them."""
        captions = captions_of(facts)
        caption = self.caption(captions, made.epoch, made.index)
        chosen = tuple(given.name for given in self.choose(facts.references, made.epoch, made.index))
        return replace(made, facts=facts, captions=captions, caption=caption, reference_names=chosen)

    def caption(self, captions: tuple[str, ...], epoch: int, index: int) -> str:
        if rng(self.seed, epoch, index, "caption drop").random() < self.chances.caption_drop:
            return ""
        short = rng(self.seed, epoch, index, "short caption").random() < self.chances.short_caption
        return captions[-1] if short else captions[0]

    def choose(self, given: list[ReferenceMeta], epoch: int, index: int) -> list[ReferenceMeta]:
        """The references that chance leaves, in the order in which they are used."""
        chances = self.chances
        wanted = [g for g in given if not chances.roles or g.role in chances.roles]
        if not wanted:
            raise CorruptError(
                f"has no reference of {', '.join(chances.roles) or 'any role'}, unlike its row of the index"
            )
        if rng(self.seed, epoch, index, "reference drop").random() < chances.reference_drop:
            return []
        most = chances.max_references or len(wanted)
        if rng(self.seed, epoch, index, "single reference").random() < chances.single_reference:
            most = 1
        order = np.argsort(rng(self.seed, epoch, index, "references").random(len(wanted)), kind="stable")[:most]
        return [wanted[n] for n in (order if chances.shuffle else np.sort(order))]


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Says of which member an error is. Whatever a decoder raises for bytes of a stranger, the sample is corrupt."""
    try:
        yield
    except (CorruptError, MemoryError):
        raise
    except Exception as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptError(f"{what} cannot be read: {why}") from error


def member(members: dict[str, memoryview], extension: str) -> memoryview:
    if extension not in members:
        raise CorruptError(f"has no member .{extension}, only {', '.join(sorted(members))}")
    return members[extension]


def facts_of(members: dict[str, memoryview], key: str) -> TripletMeta:
    """The JSON alone: pictures and video need not be there."""
    text = member(members, "json")
    with reading("its .json"):
        return to_facts(bytes(text), key)


def captions_of(facts: TripletMeta) -> tuple[str, ...]:
    """The prompt, and what it speaks of without the sentences around it: "a person in a red top, a cup, a kitchen"."""
    caption = facts.caption
    phrases = [s.phrase for s in caption.subjects if s.phrase]
    place = caption.prompt[caption.environment_start : caption.environment_end]
    return caption.prompt, ", ".join([*phrases, *([place] if place else [])]) or caption.prompt


def picture(members: dict[str, memoryview], name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    data = bytes(member(members, f"{name}.png"))
    with reading(f"its .{name}.png"):
        return from_png(data, max_pixels)[..., :3]


def tensors_of(members: dict[str, memoryview]) -> dict[str, Any]:
    """The tensors of the .safetensors, by name."""
    from safetensors.torch import load

    data = bytes(member(members, "safetensors"))
    with reading("its .safetensors"):
        return load(data)


def pictures(
    video: memoryview,
    start: int,
    count: int,
    threads: int,
    shape: tuple[int, int, int] | None = None,
    limits: Limits = LIMITS,
) -> Iterator[np.ndarray]:
    """`count` frames of an mp4 from frame `start` on, (h, w, 3) uint8 RGB.

    shape: frames, height and width by the index. Raises CorruptError where the mp4 has others, or fewer frames, or more of
    something than the limits allow.
    """
    given = 0
    with reading("its .mp4"):
        frames = frame_count(video, limits.max_frames)
        if shape and frames != shape[0]:
            order = "fewer" if frames < shape[0] else "more"
            raise CorruptError(f"has {frames} frames in its .mp4, {order} than its row of the index says")
        # the format is given: FFmpeg would take any other, playlists of other files among them
        with av.open(io.BytesIO(video), "r", format="mp4", metadata_errors="ignore") as file:
            stream = file.streams.video[0]
            if stream.codec_context.name not in CODECS:
                raise CorruptError(f"has a video of the codec {stream.codec_context.name} in its .mp4")
            # where a stream changes its size, the decoder refuses before it takes memory; it counts its margins, too
            stream.codec_context.options = {"max_pixels": str(2 * limits.max_pixels + (1 << 16))}
            check_size(stream.codec_context.height, stream.codec_context.width, shape, limits)
            stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
            for number, frame in enumerate(file.decode(stream)):
                if start <= number < start + count:
                    check_size(frame.height, frame.width, shape, limits)
                    given += 1
                    yield frame.to_ndarray(format="rgb24")
                if given == count:
                    return
    raise CorruptError(f"has {start + given} frames in its .mp4, fewer than its row of the index says")


def check_size(height: int, width: int, shape: tuple[int, int, int] | None, limits: Limits) -> None:
    if height * width > limits.max_pixels:
        raise CorruptError(f"has frames of {height} x {width} pixels in its .mp4, more than {limits.max_pixels}")
    if shape and (height, width) != shape[1:]:
        raise CorruptError(
            f"has frames of {height} x {width} pixels in its .mp4, its row of the index says {shape[1]} x {shape[2]}"
        )


def center_crop_resize(
    frames: Iterator[np.ndarray], bucket: Bucket, rng: np.random.Generator, anywhere: bool = False
) -> np.ndarray:
    """Frames (h, w, 3) uint8 -> (t, height, width, 3): the largest part of the bucket's aspect, made smaller by area.

    anywhere: the part lies where rng says, the same in all frames; else in the middle.
    """
    at_y, at_x = rng.random(2) if anywhere else (0.5, 0.5)
    shown = np.empty((bucket.frames, bucket.height, bucket.width, 3), np.uint8)
    for number, frame in enumerate(frames):
        h, w = frame.shape[:2]
        part_h, part_w = (
            min(h, round(w * bucket.height / bucket.width)),
            min(w, round(h * bucket.width / bucket.height)),
        )
        top, left = int((h - part_h + 1) * at_y), int((w - part_w + 1) * at_x)
        part = np.ascontiguousarray(frame[top : top + part_h, left : left + part_w])
        cv2.resize(part, (bucket.width, bucket.height), dst=shown[number], interpolation=cv2.INTER_AREA)
    return shown
