"""All that can be wrong with jobs of `a2data sample`, a sentence each, said before anything loads."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipelines.sample import checks
from pipelines.sample.job import MOST_TOKENS, RANGES, SCHEDULERS, Job


def validated(jobs: Sequence[tuple[str, Job]], referenced: bool = True) -> dict[str, str]:
    """The sha256 of every file that these jobs read. Reads each once; loads no network. referenced: False for SkyReels-V2.

    Raises ValueError with all sentences that there are to say, each behind the words that say where its job stands.
    """
    files: dict[tuple[Any, str], tuple[str, str]] = {}  # as what, path -> sha256, what is wrong with it
    wrong, outs = [], set()
    for where, job in jobs:
        wrong += [f"{where}{sentence}" for sentence in problems(job, referenced)]
        if job.out in outs:
            wrong.append(f"{where}another job writes {job.out}, too")
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
    """All that a job says to the network, each text behind the words for what it is."""
    named = [("prompt", job.prompt), ("negative prompt", job.negative_prompt)]
    return named + [(f"prompt of window {number}", text) for number, text in enumerate(job.next_prompt, 2)]


def problems(job: Job, referenced: bool = True) -> Iterator[str]:
    """What is wrong with a job, without a look at its files."""
    from model_zoo.a2.references import ROLES

    if not job.out.endswith(".mp4"):
        yield f"the video is to be {job.out}: its name must end in .mp4"
    elif os.path.isdir(job.out):
        yield f"the video is to be {job.out}, which is a folder"
    if not job.prompt.strip():
        yield "the prompt is empty"
    for name, text in texts(job):
        if len(text.split()) >= MOST_TOKENS:  # a word is a token at least, and one ends the text
            yield f"the {name} has {len(text.split())} words; the network reads {MOST_TOKENS} tokens: make it shorter"
    yield from _references_problems(job) if referenced else _text_alone_problems(job)
    for text, (role, file) in zip(job.ref, job.references(), strict=True):
        if role not in ROLES or not file:
            yield f"--ref {text}: write ROLE=FILE with one of the roles {', '.join(ROLES)}, such as human={file or text}"
    yield from _settings_problems(job, referenced)


def _references_problems(job: Job) -> Iterator[str]:
    """What a checkpoint of A2 needs, and has no use for."""
    if not job.ref:
        yield "no reference: name one at least with --ref ROLE=FILE"
    if job.image:
        yield "--image is for checkpoints of SkyReels-V2: with this one name the picture with --ref"


def _text_alone_problems(job: Job) -> Iterator[str]:
    """What a checkpoint of SkyReels-V2 cannot do."""
    for name, given in (("ref", job.ref), ("next_prompt", job.next_prompt)):
        if given:
            yield f"a checkpoint of SkyReels-V2 samples one text: leave out --{name}"
    if job.image and job.init_video:
        yield "a video that goes on has its first frame: leave out --image or --init-video"
    if job.reference_guidance_scale != 1:
        yield "a checkpoint of SkyReels-V2 has no references: leave out --reference-guidance-scale"


def _settings_problems(job: Job, referenced: bool) -> Iterator[str]:
    off = [name for name, (low, high) in RANGES.items() if not low <= getattr(job, name) <= high]
    for name in off:
        yield f"{name} is {getattr(job, name)}; it must be from {RANGES[name][0]} to {RANGES[name][1]}"
    if job.scheduler not in SCHEDULERS:
        yield f"no scheduler called {job.scheduler!r}: {', '.join(SCHEDULERS)}"
    if job.reference_guidance_scale != 1 and job.guidance_scale <= 1:
        yield f"guidance on references needs guidance on the prompt above 1, not {job.guidance_scale:g}"
    if not off:
        yield from _size_problems(job, referenced)


def _size_problems(job: Job, referenced: bool) -> Iterator[str]:
    from model_zoo.a2 import skyreels_v2
    from model_zoo.a2.references import check_size

    try:
        check_size(job.height, job.width, job.frames, len(job.ref))
        if job.window:
            check_size(job.height, job.width, job.window, len(job.ref))
        if not referenced:
            given = bool(job.image), bool(job.init_video)
            skyreels_v2.check_frames(job.frames, job.window, job.history, job.causal_block_size, *given)
        elif job.is_long():
            job.parts()
    except ValueError as error:
        yield str(error)
    if job.next_prompt and not job.is_long():
        yield "--next-prompt is for the windows of a long video: say with --window how many frames are sampled at a time"


def _picture(path: str) -> tuple[str, str]:
    from model_zoo.a2.references import read_picture

    try:
        read_picture(path)
        return hashlib.sha256(Path(path).read_bytes()).hexdigest(), ""
    except (ValueError, OSError) as error:
        return "", _sentence(path, error)


def _sound(path: str) -> tuple[str, str]:
    from a2data.media.decode_limits import SOUND_FORMATS
    from a2data.media.video import open_source

    try:
        with open_source(path, formats=SOUND_FORMATS) as (container, _):
            if not container.streams.audio:
                return "", f"{path} has no sound in it"
        return hashlib.sha256(Path(path).read_bytes()).hexdigest(), ""
    except (ValueError, OSError) as error:
        return "", _sentence(path, error)


@cache
def _video(fps: float) -> Any:
    """A look at a video that is to go on at that rate: always the same function, so that each file is looked at once."""
    return partial(_continued, fps)


def _continued(fps: float, path: str) -> tuple[str, str]:
    from a2data.media.video import probe

    try:
        found = probe(path)
        if abs(found.fps - fps) > 0.01 * fps:
            return "", f"{path} has {found.fps:g} frames a second, and what follows {fps:g}: say --fps {found.fps:g}"
        return hashlib.sha256(Path(path).read_bytes()).hexdigest(), ""
    except (ValueError, OSError) as error:
        return "", _sentence(path, error)


def _sentence(path: str, error: Exception) -> str:
    return f"{path}: {error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)


def check_tokens(root: Path, wanted: Sequence[tuple[str, Job]]) -> None:
    """Raises ValueError for prompts whose end the network would not read."""
    from model_zoo import torchvision_shim

    torchvision_shim.install()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer", local_files_only=True)
    texts = dict.fromkeys((where, name, text) for where, job in wanted for name, text in checks.texts(job))
    counts = {text: len(tokenizer(text).input_ids) for text in {text for _, _, text in texts}}
    wrong = [
        f"{where}the {name} has {counts[text]} tokens; the network reads {MOST_TOKENS}: make it shorter"
        for where, name, text in texts
        if counts[text] > MOST_TOKENS
    ]
    if wrong:
        raise ValueError("\n".join(wrong))
