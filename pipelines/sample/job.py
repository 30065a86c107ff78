"""Jobs of `a2data sample`: what one video is made of, from flags or the lines of a file, and all that can be wrong with it."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipelines.run.settings import TYPES, parse

NEGATIVE = (  # what Wan's authors advise against in English, with which A2 was released
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall gray, worst "
    "quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, poorly drawn faces, "
    "deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three legs, many people in the "
    "background, walking backwards"
)
SCHEDULERS = ("unipc", "unipc-released", "euler")
MOST_TOKENS = 512  # that the network reads of a prompt
RANGES = {
    "height": (16, 8192),
    "width": (16, 8192),
    "frames": (5, 10_001),
    "steps": (1, 1000),
    "guidance_scale": (0, 100),
    "reference_guidance_scale": (0, 100),
    "flow_shift": (0.01, 100),
    "seed": (0, 2**63 - 1),
    "fps": (1, 240),
    "audio_start_s": (0, 86_400),
    "window": (0, 10_001),
    "history": (1, 10_001),
    "causal_block_size": (0, 10_001),
    "ar_step": (0, 1000),
}


@dataclass(frozen=True)
class Job:
    """One video to sample. Paths are absolute, or URLs."""

    out: str  # the mp4; its .json stands beside it
    prompt: str
    ref: tuple[str, ...]  # ROLE=FILE each
    next_prompt: tuple[str, ...] = ()  # prompts of the windows of a long video after the first: a story
    height: int = 480  # px, divisible by 16
    width: int = 832  # px, divisible by 16
    frames: int = 81  # that are sampled, 4 n + 1; each reference takes 4 of them
    steps: int = 50  # of denoising
    guidance_scale: float = 5.0  # on the prompt; at 1 or below none, in half the time
    reference_guidance_scale: float = 1.0  # on the references; other than 1 it costs a third look at each step
    flow_shift: float = 8.0  # the more, the longer it stays where noise is strong: better structure, less detail
    scheduler: str = "unipc"  # unipc, unipc-released (A2's own grid of noise levels) or euler
    seed: int = 42  # of the noise
    matting_model: str = "builtin-detect"  # the detector that cuts out people and things that are no cut-outs, or none
    fps: float = 15.0  # of the mp4; A2 was trained on 15
    negative_prompt: str = NEGATIVE  # what shall not be seen
    audio: str = ""  # a file whose sound is laid under the video, cut to its length
    audio_start_s: float = 0.0  # where in that file the video begins
    window: int = 0  # frames that are sampled at a time, for videos longer than memory or training allow; 0: all
    init_video: str = ""  # a video that is to go on: what is sampled follows its last frame
    image: str = ""  # a picture with which the video begins, for checkpoints of SkyReels-V2
    history: int = 17  # frames that a window sees of the one before it
    causal_block_size: int = 0  # frames of latents, four of video each, that go together within a window; 0: all
    ar_step: int = 0  # steps by which a block is behind the one before it, for weights of diffusion forcing
    preview: bool = False  # also a contact sheet, PNG, beside the video: the references, then frames

    def is_long(self) -> bool:
        return bool(self.init_video) or 0 < self.window < self.frames

    def lengths(self) -> set[int]:
        """The frames that the network takes at once, of the references and the history too."""
        if not self.is_long():
            return {self.frames}
        heads = [len(self.ref) + part.history if part.start else 0 for part in self.parts()]
        whole = {4 * (head + part.stop - part.start) - 3 for head, part in zip(heads, self.parts(), strict=True)}
        blind = {n - 4 * len(self.ref) for n in whole} if self.reference_guidance_scale != 1 else set()
        return whole | blind

    def parts(self) -> list[Any]:
        """The windows of a long video, as if a video that is to go on had at least as many frames as the history."""
        from model_zoo.a2 import long

        before = long.num_context_latents(self.history + 4, self.history) if self.init_video else 0
        return long.video_windows(self.frames, self.window, len(self.ref), self.history, before)

    def references(self) -> list[tuple[str, str]]:
        """(role, file) of each reference."""
        return [(role, file) for role, _, file in (text.partition("=") for text in self.ref)]


SWEPT = (
    "frames",
    "steps",
    "guidance_scale",
    "reference_guidance_scale",
    "flow_shift",
    "scheduler",
    "seed",
    "window",
    "history",
    "causal_block_size",
    "ar_step",
)
LISTS = {"ref": '["human=woman.png", "object=cup.png"]', "next_prompt": '["she drinks", "she leaves"]'}
FILES = ("audio", "init_video", "image")  # settings that are paths
SETTINGS = [f for f in fields(Job) if f.name not in ("out", "prompt", *LISTS)]


def read(path: str, given: dict[str, Any], out: str) -> list[tuple[str, Job]]:
    """The jobs of a file of JSON lines, each with the words that say where it stands.

    A line's keys are the names of the flags: out, prompt, ref and then (lists), and settings; `given` holds the settings of lines
    that do not say them. Pictures and sound are looked for from the file's folder, `out` is below the folder `out`.
    Raises ValueError with a sentence for every line that is wrong.
    """
    home, found, wrong = os.path.dirname(os.path.abspath(path)), [], []
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8, as a file of JSON lines must be") from error
    for number, text in enumerate(lines, 1):
        where = f"{path} line {number}: "
        if text.strip():
            try:
                found.append((where, from_line(text, given, home, out)))
            except ValueError as error:
                wrong.append(f"{where}{error}")
    if wrong:
        raise ValueError("\n".join(wrong))
    if not found:
        raise ValueError(f"{path} has no job in it: a line each, such as {EXAMPLE}")
    return found


EXAMPLE = '{"out": "a.mp4", "prompt": "a woman drinks from a cup", "ref": ["human=woman.png", "object=cup.png"]}'


def from_line(text: str, given: dict[str, Any], home: str, out: str) -> Job:
    """The job of a line. Raises ValueError for one that is no job; what a job must be is for checks.problems."""
    try:
        line = json.loads(text)
    except ValueError as error:
        raise ValueError(f"this is no JSON ({error})") from error
    if not isinstance(line, dict):
        raise ValueError(f"a job is an object, such as {EXAMPLE}")
    values = given | {name.replace("-", "_"): _typed(name, value) for name, value in line.items()}
    lacking = [name for name in ("out", "prompt") if name not in values]
    if lacking:
        raise ValueError(f"it lacks {' and '.join(lacking)}")
    if os.path.isabs(values["out"]) or ".." in Path(values["out"]).parts or "://" in values["out"]:
        raise ValueError(f"out is {values['out']!r}; it must be a name below the folder that --out names")
    return located(values | {"out": f"{out.rstrip('/')}/{values['out']}"}, home)


def _typed(name: str, value: Any) -> Any:
    """A value of a line, if it is of its field's type."""
    kinds = {f.name: f.type for f in fields(Job)}
    kind = kinds.get(name.replace("-", "_"))
    if kind is None:
        raise ValueError(f"there is no {name!r}; a job has {', '.join(kinds)}")
    if name in LISTS:
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise ValueError(f"{name} is no list of texts such as {LISTS[name]}")
        return tuple(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{name} is {json.dumps(value)}; it must be {_words(kind)}")
    return value


def _words(kind: Any) -> str:
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind]


def located(values: dict[str, Any], home: str) -> Job:
    """A job of these values, its files absolute as seen from the folder `home`."""

    def at(file: str) -> str:
        return os.path.join(home, os.path.expanduser(file)) if file else ""

    pairs = [text.partition("=") for text in values.get("ref", ())]
    refs = tuple(f"{role}={at(file)}" if equals else role for role, equals, file in pairs)
    out = values["out"] if "://" in values["out"] else os.path.abspath(values["out"])
    return Job(
        **values
        | {name: at(values.get(name, "")) for name in FILES}
        | {"ref": refs, "next_prompt": tuple(values.get("next_prompt", ())), "out": out}
    )


def swept(job: Job, text: str) -> list[Job]:
    """A job for each value of "flow-shift=1,3,5", out-flow-shift-1.mp4 and so on. Raises ValueError for no such setting."""
    flag, _, listed = text.partition("=")
    kinds = {f.name: TYPES[f.type] for f in SETTINGS if f.name in SWEPT}
    name = flag.strip().lstrip("-").replace("-", "_")
    if name not in kinds:
        raise ValueError(f"--sweep {text!r}: write SETTING=VALUE,VALUE,… with one of {', '.join(kinds)}")
    values = [value.strip() for value in listed.split(",") if value.strip()]
    if len(values) < 2 or len(set(values)) < len(values):
        raise ValueError(f"--sweep {text!r}: name two values at least, each once, such as flow-shift=1,3,5,8,12")
    stem, flag = job.out.removesuffix(".mp4"), name.replace("_", "-")
    return [
        replace(job, **{name: parse(v, kinds[name], f"--sweep {text!r}"), "out": f"{stem}-{flag}-{v}.mp4"})
        for v in values
    ]


def num_forward_passes(job: Job) -> int:
    """How many steps of sampling a job takes."""
    from model_zoo.a2 import long

    if not job.is_long():
        return job.steps
    return long.passes(job.parts(), len(job.ref), job.steps, job.causal_block_size, job.ar_step)


def by_shape(jobs: Iterable[Any], job_of: Any = lambda job: job) -> list[Any]:
    """Jobs of one shape next to one another, in the order in which the shapes come first: compiled code serves a shape."""
    jobs = list(jobs)
    first: dict[tuple, int] = {}
    for job in jobs:
        first.setdefault(shape(job_of(job)), len(first))
    return sorted(jobs, key=lambda job: first[shape(job_of(job))])


def shape(job: Job) -> tuple[int, ...]:
    """What the network's tensors' sizes follow from."""
    return job.height, job.width, job.frames, len(job.ref), int(job.is_long())
