"""Validation of `a2data sample` jobs before anything is loaded, with one message per problem."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

from a2data.store.folder import file_sha256
from pipelines.sample.checkpoint import Checkpoint
from pipelines.sample.job import FEW_STEPS, MOST_TOKENS, RANGES, SCHEDULERS, Job


def validated(
    jobs: Sequence[tuple[str, Job]], conditioning: str = "a2", known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the sha256 of every file that these jobs read. Reads each file once; does not load a network.

    jobs: pairs of the position to report and the job. conditioning: that of the checkpoint, "" if it does not take references.
    known: {path: sha256} of pictures that are in memory, which are not read. Raises ValueError with all problems, each prefixed
    with its job's position.
    """
    files: dict[tuple[Any, str], tuple[str, str]]  # (reader, path) -> (sha256, problem)
    files = {(_picture, path): (sha256, "") for path, sha256 in (known or {}).items()}
    wrong, outs = [], set()
    for where, job in jobs:
        wrong += [f"{where}{sentence}" for sentence in problems(job, conditioning)]
        if job.out in outs:
            wrong.append(f"{where}another job also writes {job.out}")
        outs.add(job.out)
        pictures = [file for _, file in job.references()] + [job.image]
        reads = [(file, _picture) for file in pictures if file]
        reads += [(job.audio, _sound)] * bool(job.audio) + [(job.init_video, _video(job.fps))] * bool(job.init_video)
        for path, look in reads:
            if (look, path) not in files:
                files[look, path] = look(path)
            sentence = files[look, path][1]
            wrong += [f"{where}{sentence}"] if sentence else []
    if wrong:
        raise ValueError("\n".join(dict.fromkeys(wrong)))
    return {path: sha256 for (_, path), (sha256, _) in files.items()}


def texts(job: Job) -> list[tuple[str, str]]:
    """Return (name, text) of every prompt of a job."""
    named = [("prompt", job.prompt), ("negative prompt", job.negative_prompt)]
    return named + [(f"prompt of window {number}", text) for number, text in enumerate(job.next_prompt, 2)]


def problems(job: Job, conditioning: str = "a2") -> Iterator[str]:
    """Yield the problems of a job, without reading its files."""
    from model_zoo.a2.references import ROLES

    if not job.out.endswith(".mp4"):
        yield f"out is {job.out}: its name must end in .mp4"
    elif os.path.isdir(job.out):
        yield f"out is {job.out}, which is a folder: name an .mp4 file"
    if not job.prompt.strip():
        yield "the prompt is empty"
    for name, text in texts(job):
        # each word is at least one token, and an end token follows
        if len(text.split()) >= MOST_TOKENS:
            yield f"the {name} has {len(text.split())} words; the network reads {MOST_TOKENS} tokens: shorten it"
    yield from _references_problems(job) if conditioning else _text_alone_problems(job)
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


def _text_alone_problems(job: Job) -> Iterator[str]:
    """Yield the problems of a job for a SkyReels-V2 checkpoint."""
    for name, given in (("ref", job.ref), ("next_prompt", job.next_prompt)):
        if given:
            yield f"SkyReels-V2 checkpoints take a single prompt and no references: remove --{name.replace('_', '-')}"
    if job.image and job.init_video:
        yield "--image sets the first frame, and --init-video already has one: remove one of them"
    if job.reference_guidance_scale != 1:
        yield "SkyReels-V2 checkpoints do not take references: remove --reference-guidance-scale"


def _settings_problems(job: Job, conditioning: str) -> Iterator[str]:
    off = [name for name, (low, high) in RANGES.items() if not low <= getattr(job, name) <= high]
    for name in off:
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
    if not off:
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
            job.parts()
    except ValueError as error:
        yield str(error)
    if job.next_prompt and not job.is_long():
        yield "--next-prompt is for the windows of a long video: set --window to the number of frames sampled at a time"


def _picture(path: str) -> tuple[str, str]:
    from a2data.media.pictures import read_picture

    try:
        read_picture(path)
        return file_sha256(path), ""
    except (ValueError, OSError) as error:
        return "", _sentence(path, error)


def _sound(path: str) -> tuple[str, str]:
    from a2data.media.decode_limits import SOUND_FORMATS
    from a2data.media.video import open_source

    try:
        with open_source(path, formats=SOUND_FORMATS) as (container, _):
            if not container.streams.audio:
                return "", f"{path} has no audio stream"
        return file_sha256(path), ""
    except (ValueError, OSError) as error:
        return "", _sentence(path, error)


@cache
def _video(fps: float) -> Any:
    """Return the reader of a video to extend at that frame rate: always the same object, so that each file is read once."""
    return partial(_continued, fps)


def _continued(fps: float, path: str) -> tuple[str, str]:
    from a2data.media.video import probe

    try:
        found = probe(path)
        if abs(found.fps - fps) > 0.01 * fps:
            return "", f"{path} has {found.fps:g} frames per second, but --fps is {fps:g}: set --fps {found.fps:g}"
        return file_sha256(path), ""
    except (ValueError, OSError) as error:
        return "", _sentence(path, error)


def _sentence(path: str, error: Exception) -> str:
    return f"{path}: {error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)


def check_tokens(checkpoint: Checkpoint, wanted: Sequence[tuple[str, Job]]) -> None:
    """Raise ValueError for prompts longer than the network reads."""
    named = dict.fromkeys((where, name, text) for where, job in wanted for name, text in texts(job))
    counts = checkpoint.num_tokens(text for _, _, text in named)
    wrong = [
        f"{where}the {name} has {counts[text]} tokens; the network reads {MOST_TOKENS}: shorten it"
        for where, name, text in named
        if counts[text] > MOST_TOKENS
    ]
    if wrong:
        raise ValueError("\n".join(wrong))
