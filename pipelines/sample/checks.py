"""Validation of `a2data sample` jobs before anything is loaded, with one message per problem."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

from a2data.store.folder import file_sha256
from pipelines.sample.checkpoint import Checkpoint
from pipelines.sample.job import FEW_STEPS, MAX_TOKENS, RANGES, SCHEDULERS, Job


def validate(
    jobs: Sequence[tuple[str, Job]], conditioning: str = "a2", known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the sha256 of every file that these jobs read. Reads each file once; does not load a network.

    jobs: pairs of the position to report and the job. conditioning: that of the checkpoint, "" if it does not take references.
    known: {path: sha256} of pictures that are in memory, which are not read. Raises ValueError with all problems, each prefixed
    with its job's position.
    """
    files: dict[tuple[Any, str], tuple[str, str]]  # (reader, path) -> (sha256, problem)
    files = {(_check_picture, path): (sha256, "") for path, sha256 in (known or {}).items()}
    errors, paths = [], set()
    for position, job in jobs:
        errors += [f"{position}{message}" for message in problems(job, conditioning)]
        if job.out in paths:
            errors.append(f"{position}another job also writes {job.out}")
        paths.add(job.out)
        pictures = [file for _, file in job.references()] + [job.image]
        reads = [(file, _check_picture) for file in pictures if file]
        reads += [(job.audio, _check_audio)] * bool(job.audio) + [(job.init_video, _init_video_reader(job.fps))] * bool(
            job.init_video
        )
        for path, reader in reads:
            if (reader, path) not in files:
                files[reader, path] = reader(path)
            message = files[reader, path][1]
            errors += [f"{position}{message}"] if message else []
    if errors:
        raise ValueError("\n".join(dict.fromkeys(errors)))
    return {path: sha256 for (_, path), (sha256, _) in files.items()}


def named_prompts(job: Job) -> list[tuple[str, str]]:
    """Return (name, text) of every prompt of a job."""
    prompts = [("prompt", job.prompt), ("negative prompt", job.negative_prompt)]
    return prompts + [(f"prompt of window {number}", text) for number, text in enumerate(job.next_prompt, 2)]


def problems(job: Job, conditioning: str = "a2") -> Iterator[str]:
    """Yield the problems of a job, without reading its files."""
    from model_zoo.a2.references import ROLES

    if not job.out.endswith(".mp4"):
        yield f"out is {job.out}: its name must end in .mp4"
    elif os.path.isdir(job.out):
        yield f"out is {job.out}, which is a folder: name an .mp4 file"
    if not job.prompt.strip():
        yield "the prompt is empty"
    for name, text in named_prompts(job):
        # each word is at least one token, and an end token follows
        if len(text.split()) >= MAX_TOKENS:
            yield f"the {name} has {len(text.split())} words; the network reads {MAX_TOKENS} tokens: shorten it"
    yield from _references_problems(job) if conditioning else _text_only_problems(job)
    for text, (role, file) in zip(job.ref, job.references(), strict=True):
        if role not in ROLES or not file:
            yield f"--ref {text}: write ROLE=FILE with one of the roles {', '.join(ROLES)}, such as human={file or text}"
    yield from _settings_problems(job, conditioning)


def _references_problems(job: Job) -> Iterator[str]:
    """Yield the problems of a job for an A2 checkpoint."""
    if not job.ref:
        yield "no reference: give at least one with --ref ROLE=FILE"
    if job.image:
        yield "--image is for SkyReels-V2 checkpoints: with this one, use --ref ROLE=FILE"


def _text_only_problems(job: Job) -> Iterator[str]:
    """Yield the problems of a job for a SkyReels-V2 checkpoint."""
    for name, value in (("ref", job.ref), ("next_prompt", job.next_prompt)):
        if value:
            yield f"SkyReels-V2 checkpoints take a single prompt and no references: remove --{name.replace('_', '-')}"
    if job.image and job.init_video:
        yield "--image sets the first frame, and --init-video already has one: remove one of them"
    if job.reference_guidance_scale != 1:
        yield "SkyReels-V2 checkpoints do not take references: remove --reference-guidance-scale"


def _settings_problems(job: Job, conditioning: str) -> Iterator[str]:
    out_of_range = [name for name, (low, high) in RANGES.items() if not low <= getattr(job, name) <= high]
    for name in out_of_range:
        yield f"{name} is {getattr(job, name)}; it must be from {RANGES[name][0]} to {RANGES[name][1]}"
    if job.scheduler not in SCHEDULERS:
        yield f"unknown scheduler {job.scheduler!r}: choose {', '.join(SCHEDULERS)}"
    steps = FEW_STEPS.get(job.scheduler, job.steps)
    if job.steps != steps or (job.scheduler in FEW_STEPS and (job.guidance_scale > 1 or job.is_long())):
        yield (
            f"--scheduler {job.scheduler} has {steps} steps and one window, without guidance: remove --steps, --guidance-scale, "
            "--window and --init-video"
        )
    if job.reference_guidance_scale != 1 and job.guidance_scale <= 1:
        yield f"--reference-guidance-scale needs a --guidance-scale above 1, not {job.guidance_scale:g}"
    if not out_of_range:
        yield from _size_problems(job, conditioning)


def _size_problems(job: Job, conditioning: str) -> Iterator[str]:
    from model_zoo.a2 import skyreels_v2
    from model_zoo.a2.references import check_size

    try:
        # only A2's references take up frames of the video
        count = len(job.ref) if conditioning in ("", "a2") else 0
        check_size(job.height, job.width, job.frames, count)
        if job.window:
            check_size(job.height, job.width, job.window, count)
        if conditioning in ("appended", "vace"):
            if job.is_long():
                yield f"--window and --init-video need A2's conditioning, not {conditioning}: remove them"
        elif not conditioning:
            given = bool(job.image), bool(job.init_video)
            skyreels_v2.check_frames(job.frames, job.window, job.history, job.causal_block_size, *given)
        elif job.is_long():
            job.windows()
    except ValueError as error:
        yield str(error)
    if job.next_prompt and not job.is_long():
        yield "--next-prompt is for the windows of a long video: set --window to the number of frames sampled at a time"


def _check_picture(path: str) -> tuple[str, str]:
    from a2data.media.pictures import read_picture

    try:
        read_picture(path)
        return file_sha256(path), ""
    except (ValueError, OSError) as error:
        return "", _error_message(path, error)


def _check_audio(path: str) -> tuple[str, str]:
    from a2data.media.decode_limits import SOUND_FORMATS
    from a2data.media.video import open_source

    try:
        with open_source(path, formats=SOUND_FORMATS) as (container, _):
            if not container.streams.audio:
                return "", f"{path} has no audio stream"
        return file_sha256(path), ""
    except (ValueError, OSError) as error:
        return "", _error_message(path, error)


@cache
def _init_video_reader(fps: float) -> Any:
    """Return the reader of a video to extend at that frame rate: always the same object, so that each file is read once."""
    return partial(_check_init_video, fps)


def _check_init_video(fps: float, path: str) -> tuple[str, str]:
    from a2data.media.video import probe

    try:
        stream = probe(path)
        if abs(stream.fps - fps) > 0.01 * fps:
            return "", f"{path} has {stream.fps:g} frames per second, but --fps is {fps:g}: set --fps {stream.fps:g}"
        return file_sha256(path), ""
    except (ValueError, OSError) as error:
        return "", _error_message(path, error)


def _error_message(path: str, error: Exception) -> str:
    return f"{path}: {error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)


def check_tokens(checkpoint: Checkpoint, jobs: Sequence[tuple[str, Job]]) -> None:
    """Raise ValueError for prompts longer than the network reads."""
    named = dict.fromkeys((position, name, text) for position, job in jobs for name, text in named_prompts(job))
    counts = checkpoint.num_tokens(text for _, _, text in named)
    errors = [
        f"{position}the {name} has {counts[text]} tokens; the network reads {MAX_TOKENS}: shorten it"
        for position, name, text in named
        if counts[text] > MAX_TOKENS
    ]
    if errors:
        raise ValueError("\n".join(errors))
