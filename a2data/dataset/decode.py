"""Decoding of a sample for training: tar members decoded, cropped to the shape of the batch, with random augmentation.

Only the encoded view needs torch.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import av
import numpy as np

from a2data.dataset.batch_plan import Batch, Bucket, rng
from a2data.dataset.triplet import ReferenceMeta, TripletMeta, short_caption, to_facts
from a2data.media.images import MAX_PIXELS, from_png
from a2data.media.mp4 import frame_count
from a2data.media.pictures import crop_resize
from a2data.media.sound import of_clip


class CorruptError(ValueError):
    """A sample that is at its offset in the index but cannot be read."""


CODECS = {"h264", "hevc", "vp9", "av1", "libdav1d"}  # accepted video codecs in an mp4
MAX_REFERENCE_PIXELS_RATIO = 4  # limit of the pixels of all references of a sample, as a multiple of the limit of one


class Limits(NamedTuple):
    """Limits of a sample, to bound the memory of a process that reads shards. A sample that exceeds them is replaced."""

    max_pixels: int = MAX_PIXELS  # height x width of a frame or a reference; 33.5 million: 8K
    max_frames: int = 10_000  # of a video
    max_bytes: int = 1 << 28  # of a sample in its tar; an index with a larger one is rejected


LIMITS = Limits()


class Shape(NamedTuple):
    """Shape of a sample according to its row of the index."""

    frames: int
    height: int  # px
    width: int
    references: int


class Augmentation(NamedTuple):
    """Probabilities of dropout and random choices per sample. A2 was trained with 0.3 and 0.1 for the drops."""

    caption_drop: float = 0.0  # probability of replacing the caption by ""
    short_caption: float = 0.0  # otherwise, probability of only the phrases of subjects and place as caption
    caption: str = "long"  # otherwise, the caption of this name, see NamedCaption; "any": one of them at random
    reference_drop: float = 0.0  # probability of dropping all references
    single_reference: float = 0.0  # otherwise, probability of keeping only one reference, chosen at random
    max_references: int = 0  # most references, chosen at random; 0 for all
    shuffle: bool = False  # shuffle references; otherwise in packed order: people, objects …, background last
    roles: tuple[str, ...] = ()  # roles to keep; samples without any of them are not in any batch. () for all


class Reference(NamedTuple):
    """A picture of a person, object or place that is in the video."""

    kind: str  # human, object, face, upper …, background
    picture: np.ndarray  # (h, w, 3) uint8 RGB; a subject is on white, at its position in its own frame
    name: str  # "ref0", "ref1" …, "bg", as in the names of its members
    phrase: str  # phrase of the prompt, "" for none


@dataclass(frozen=True)
class Sample:
    """A triplet in a batch. The view determines which fields are filled."""

    key: str
    step: int  # training step
    epoch: int
    index: int  # number of the sample in the epoch: rng(seed, sample.epoch, sample.index, "noise")
    row: int  # row of the index
    bucket: Bucket
    facts: TripletMeta | None = None  # the JSON; None in the view "bytes", and if an encoded sample does not have it
    captions: Mapping[str, str] = field(default_factory=dict)  # name -> text: "long", the prompt, "short" and others
    caption: str = ""  # the chosen caption; "" if dropped
    references: tuple[Reference, ...] = ()  # the chosen references, with pictures; view "raw" only
    reference_names: tuple[str, ...] = ()  # their names, in every view that has facts
    video: np.ndarray | None = None  # view "raw": (t, height, width, 3) uint8 RGB
    sound: np.ndarray | None = None  # of those frames, if asked for: (2, samples) float32; silence where there is none
    tensors: Mapping[str, Any] = field(default_factory=dict)  # view "encoded": torch tensors by name
    members: Mapping[str, memoryview] = field(default_factory=dict)  # view "bytes": members by extension
    replaced: Mapping[str, str] = field(default_factory=dict)  # corrupt samples replaced by this one, key -> error


@dataclass(frozen=True)
class Decode:
    """Decoder from tar members to a sample in one of the views."""

    view: str
    seed: int
    shape: Callable[[Iterator[np.ndarray], Bucket, np.random.Generator], np.ndarray]
    augmentation: Augmentation
    threads: int  # threads of the video decoder; 0 for automatic
    limits: Limits = LIMITS
    sound_hz: int = 0  # sample rate of the sound; 0 for none

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

        shape_of: returns the shape of a row according to the index. Raises CorruptError for members that are missing, damaged, or
        inconsistent with it.
        """
        identity = (key, batch.step, batch.epoch, index, row, batch.bucket)
        if self.view == "bytes":
            return Sample(*identity, members=members)
        sample = Sample(*identity)
        if self.view == "raw" or "json" in members:
            sample = self.with_facts(sample, parse_facts(members, key))
        if self.view == "encoded":
            return replace(sample, tensors=tensors_of(members))
        assert sample.facts is not None
        shape = shape_of(row)
        if len(sample.facts.references) != shape.references:
            raise CorruptError(
                f"has {len(sample.facts.references)} references in its .json, but its row of the index says {shape.references}"
            )
        references = self.references(members, sample)
        first_frame = rng(self.seed, batch.epoch, index, "start").integers(shape.frames - batch.bucket.frames + 1)
        mp4 = get_member(members, "mp4")
        frames = decode_frames(mp4, int(first_frame), batch.bucket.frames, self.threads, shape[:3], self.limits)
        video = self.shape(frames, batch.bucket, rng(self.seed, batch.epoch, index, "crop"))
        sound = self.sound(mp4, sample.facts, int(first_frame), batch.bucket.frames) if self.sound_hz else None
        return replace(sample, references=references, video=video, sound=sound)

    def sound(self, mp4: memoryview, facts: TripletMeta, start: int, count: int) -> np.ndarray:
        """Return the sound of `count` frames from frame `start` on."""
        begin_s, length_s = start / facts.fps, count / facts.fps
        with decode_errors("the sound of its .mp4"):
            clip_sound = of_clip(mp4, self.sound_hz, begin_s, length_s)
        if clip_sound.problem:
            raise CorruptError(f"has a damaged sound in its .mp4: {clip_sound.problem}")
        silence = np.zeros((2, round(length_s * self.sound_hz)), np.float32)
        return silence if clip_sound.samples is None else clip_sound.samples

    def references(self, members: dict[str, memoryview], sample: Sample) -> tuple[Reference, ...]:
        """Return the chosen references with their pictures."""
        assert sample.facts is not None
        by_name = {meta.name: meta for meta in sample.facts.references}
        if len(by_name) < len(sample.facts.references):
            raise CorruptError("has two references with the same name in its .json")
        references, pixels_left = list[Reference](), MAX_REFERENCE_PIXELS_RATIO * self.limits.max_pixels
        for name in sample.reference_names:
            picture = decode_reference(members, name, min(pixels_left, self.limits.max_pixels))
            pixels_left -= picture.shape[0] * picture.shape[1]
            references.append(Reference(by_name[name].role, picture, name, by_name[name].phrase))
        return tuple(references)

    def with_facts(self, sample: Sample, facts: TripletMeta) -> Sample:
        """Return the sample with its facts and the random choices of caption and references."""
        captions = captions_of(facts)
        caption = self.caption(captions, sample.epoch, sample.index)
        chosen = self.choose_references(facts.references, sample.epoch, sample.index)
        names = tuple(reference.name for reference in chosen)
        return replace(sample, facts=facts, captions=captions, caption=caption, reference_names=names)

    def caption(self, captions: Mapping[str, str], epoch: int, index: int) -> str:
        if rng(self.seed, epoch, index, "caption drop").random() < self.augmentation.caption_drop:
            return ""
        short = rng(self.seed, epoch, index, "short caption").random() < self.augmentation.short_caption
        name = "short" if short else self.augmentation.caption
        if name == "any":
            name = sorted(captions)[int(rng(self.seed, epoch, index, "caption").integers(len(captions)))]
        if name not in captions:
            raise CorruptError(f"does not have a caption {name!r}; it has {', '.join(sorted(captions))}")
        return captions[name]

    def choose_references(self, references: list[ReferenceMeta], epoch: int, index: int) -> list[ReferenceMeta]:
        """Return the references that remain after random dropout, in order of use."""
        augmentation = self.augmentation
        eligible = [each for each in references if not augmentation.roles or each.role in augmentation.roles]
        if not eligible:
            raise CorruptError(
                f"does not have a reference of {', '.join(augmentation.roles) or 'any role'}, unlike its row of the index"
            )
        if rng(self.seed, epoch, index, "reference drop").random() < augmentation.reference_drop:
            return []
        limit = augmentation.max_references or len(eligible)
        if rng(self.seed, epoch, index, "single reference").random() < augmentation.single_reference:
            limit = 1
        order = np.argsort(rng(self.seed, epoch, index, "references").random(len(eligible)), kind="stable")[:limit]
        return [eligible[n] for n in (order if augmentation.shuffle else np.sort(order))]


@contextmanager
def decode_errors(name: str) -> Iterator[None]:
    """Turn exceptions into CorruptError with the member's name. Decoders may raise any exception for untrusted bytes."""
    try:
        yield
    except (CorruptError, MemoryError):
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptError(f"{name} cannot be read: {reason}") from error


def get_member(members: dict[str, memoryview], extension: str) -> memoryview:
    if extension not in members:
        raise CorruptError(f"lacks the member .{extension}; it has {', '.join(sorted(members))}")
    return members[extension]


def parse_facts(members: dict[str, memoryview], key: str) -> TripletMeta:
    """Return the metadata from the JSON. The other members may be missing."""
    text = get_member(members, "json")
    with decode_errors("its .json"):
        return to_facts(bytes(text), key)


def captions_of(facts: TripletMeta) -> dict[str, str]:
    """Return the captions of a sample by name. Those packed before there were several have "long" and "short"."""
    return {"long": facts.caption.prompt, "short": short_caption(facts.caption)} | {
        each.name: each.text for each in facts.captions
    }


def decode_reference(members: dict[str, memoryview], name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    data = bytes(get_member(members, f"{name}.png"))
    with decode_errors(f"its .{name}.png"):
        return from_png(data, max_pixels)[..., :3]


def tensors_of(members: dict[str, memoryview]) -> dict[str, Any]:
    """Return the tensors of the .safetensors by name."""
    from safetensors.torch import load

    data = bytes(get_member(members, "safetensors"))
    with decode_errors("its .safetensors"):
        return load(data)


def decode_frames(
    video: memoryview,
    start: int,
    count: int,
    threads: int,
    shape: tuple[int, int, int] | None = None,
    limits: Limits = LIMITS,
) -> Iterator[np.ndarray]:
    """Yield `count` frames of an mp4 from frame `start` on, (h, w, 3) uint8 RGB.

    shape: frames, height and width from the index. Raises CorruptError if the mp4 has another shape, too few frames, or exceeds
    the limits.
    """
    num_yielded = 0
    with decode_errors("its .mp4"):
        frames = frame_count(video, limits.max_frames)
        if shape and frames != shape[0]:
            order = "fewer" if frames < shape[0] else "more"
            raise CorruptError(f"has {frames} frames in its .mp4, {order} than its row of the index says")
        # fixed format, since FFmpeg would otherwise accept any, including playlists that open other files
        with av.open(io.BytesIO(video), "r", format="mp4", metadata_errors="ignore") as file:
            stream = file.streams.video[0]
            if stream.codec_context.name not in CODECS:
                raise CorruptError(f"has a video with the unsupported codec {stream.codec_context.name} in its .mp4")
            # so that the decoder rejects a stream that changes its size before it allocates memory; it counts its margins too
            stream.codec_context.options = {"max_pixels": str(2 * limits.max_pixels + (1 << 16))}
            check_size(stream.codec_context.height, stream.codec_context.width, shape, limits)
            stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
            for number, frame in enumerate(file.decode(stream)):
                if start <= number < start + count:
                    check_size(frame.height, frame.width, shape, limits)
                    num_yielded += 1
                    yield frame.to_ndarray(format="rgb24")
                if num_yielded == count:
                    return
    raise CorruptError(f"has {start + num_yielded} frames in its .mp4, fewer than its row of the index says")


def check_size(height: int, width: int, shape: tuple[int, int, int] | None, limits: Limits) -> None:
    if height * width > limits.max_pixels:
        raise CorruptError(f"has frames of {height} x {width} pixels in its .mp4, more than {limits.max_pixels}")
    if shape and (height, width) != shape[1:]:
        raise CorruptError(
            f"has frames of {height} x {width} pixels in its .mp4, but its row of the index says {shape[1]} x {shape[2]}"
        )


def center_crop_resize(
    frames: Iterator[np.ndarray], bucket: Bucket, rng: np.random.Generator, random_position: bool = False
) -> np.ndarray:
    """Return frames (h, w, 3) uint8 as (t, height, width, 3), each by `crop_resize`.

    random_position: crop at a random position, the same in all frames, instead of the centre.
    """
    position = (float(rng.random()), float(rng.random())) if random_position else (0.5, 0.5)
    out = np.empty((bucket.frames, bucket.height, bucket.width, 3), np.uint8)
    for number, frame in enumerate(frames):
        out[number] = crop_resize(frame, bucket.height, bucket.width, position)
    return out
