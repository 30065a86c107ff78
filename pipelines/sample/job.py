"""Jobs of `a2data sample`, one per video, read from flags or from a file of JSON lines."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pipelines.run.settings import parse, value_type

# the English negative prompt of Wan's authors, with which A2 was released
NEGATIVE_PROMPT = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall gray, worst "
    "quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, poorly drawn faces, "
    "deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three legs, many people in the "
    "background, walking backwards"
)
Scheduler = Literal["unipc", "unipc-released", "euler", "lightx2v", "causvid", "fastwan"]
SCHEDULERS = get_args(Scheduler)
FEW_STEPS = {"lightx2v": 4, "causvid": 9, "fastwan": 3}  # of step-distilled weights, see model_zoo.a2.few_step
MAX_TOKENS = 512  # tokens of a prompt that the network reads
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
    """One video to sample. Paths are absolute paths or URLs."""

    out: str
    """path of the mp4; its .json is written next to it"""
    prompt: str
    ref: tuple[str, ...]
    """ROLE=FILE each"""
    next_prompt: tuple[str, ...] = ()
    """prompts for the windows of a long video after the first"""
    height: int = 480
    """height of the video in px, divisible by 16 (default: as trained, 480 if the checkpoint does not say)"""
    width: int = 832
    """width of the video in px, divisible by 16 (default: as trained, else 832)"""
    frames: int = 81
    """frames to sample, 4 n + 1; with A2, each reference takes up 4 of them (default: as trained, else 81)"""
    steps: int = 50
    """denoising steps (default: 50; with the schedulers of distilled weights, theirs)"""
    guidance_scale: float = 5.0
    """scale of CFG on the prompt; at 1 or below CFG is off, which halves the time (default: 5.0; 1.0 if trained without dropped
    captions)"""
    reference_guidance_scale: float = 1.0
    """scale of CFG on references; if not 1, one more forward pass per step"""
    flow_shift: float = 8.0
    """timestep shift; higher spends more steps at high noise: better structure, less detail"""
    scheduler: Scheduler = "unipc"
    """noise schedule and solver; unipc-released has A2's own noise levels; lightx2v, causvid and fastwan are for weights
    that were so distilled (see --lora), without guidance and with 4, 9 and 3 steps (default: unipc)"""
    seed: int = 42
    """seed of the noise"""
    matting_model: str = "builtin-detect"
    """detector that cuts out subjects of references not on white, or none"""
    fps: float = 15.0
    """frame rate of the mp4, frames per second (default: as trained, else 15.0, as A2)"""
    negative_prompt: str = NEGATIVE_PROMPT
    """negative prompt (default: the one recommended by Wan's authors)"""
    audio: str = ""
    """audio file for the soundtrack, trimmed to the video's length"""
    audio_start_s: float = 0.0
    """start of the soundtrack in the audio file, seconds"""
    window: int = 0
    """frames sampled at a time, for videos longer than memory or training allow; 0: all"""
    init_video: str = ""
    """video to extend: sampling continues after its last frame"""
    image: str = ""
    """first frame of the video, for SkyReels-V2 checkpoints"""
    history: int = 17
    """frames of the previous window that a window is conditioned on"""
    causal_block_size: int = 0
    """latent frames per block (4 video frames each) within a window; 0: one block"""
    ar_step: int = 0
    """steps by which each block lags the previous one, for diffusion-forcing weights"""
    preview: bool = False
    """also write a contact sheet (PNG) next to the video: references, then frames"""

    def is_long(self) -> bool:
        return bool(self.init_video) or 0 < self.window < self.frames

    def pass_lengths(self) -> set[int]:
        """Return the numbers of frames that the network processes at once, including references and history."""
        if not self.is_long():
            return {self.frames}
        context_frames = [len(self.ref) + part.history if part.start else 0 for part in self.windows()]
        with_references = {
            4 * (context + part.stop - part.start) - 3
            for context, part in zip(context_frames, self.windows(), strict=True)
        }
        without_references = (
            {n - 4 * len(self.ref) for n in with_references} if self.reference_guidance_scale != 1 else set()
        )
        return with_references | without_references

    def windows(self) -> list[Any]:
        """Return the windows of a long video, assuming that `init_video` has at least `history` frames."""
        from model_zoo.a2 import long

        context_latents = long.num_context_latents(self.history + 4, self.history) if self.init_video else 0
        return long.video_windows(self.frames, self.window, len(self.ref), self.history, context_latents)

    def references(self) -> list[tuple[str, str]]:
        """Return (role, file) of each reference."""
        return [(role, file) for role, _, file in (text.partition("=") for text in self.ref)]


SWEEPABLE = (
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
LIST_FIELDS = {"ref": '["human=woman.png", "object=cup.png"]', "next_prompt": '["she drinks", "she leaves"]'}
FILE_FIELDS = ("audio", "init_video", "image")  # settings that are paths
NOT_SETTINGS = ("out", "prompt", *LIST_FIELDS)
SETTINGS = [f for f in fields(Job) if f.name not in NOT_SETTINGS]


def read(path: str, defaults: dict[str, Any], out: str) -> list[tuple[str, Job]]:
    """Return the jobs of a JSON-lines file, each with its position ("PATH line N: ").

    A line's keys are flag names: out, prompt, ref and next-prompt (lists), and settings; `defaults` holds the settings that
    a line may omit. Images and audio files are relative to the file's folder, a line's `out` to the folder `out`.
    Raises ValueError with one message per invalid line.
    """
    base, jobs, errors = os.path.dirname(os.path.abspath(path)), [], []
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text, as a file of JSON lines must be") from error
    for number, text in enumerate(lines, 1):
        position = f"{path} line {number}: "
        if text.strip():
            try:
                jobs.append((position, from_line(text, defaults, base, out)))
            except ValueError as error:
                errors.append(f"{position}{error}")
    if errors:
        raise ValueError("\n".join(errors))
    if not jobs:
        raise ValueError(f"{path} has no jobs: write one per line, such as {EXAMPLE}")
    return jobs


EXAMPLE = '{"out": "a.mp4", "prompt": "a woman drinks from a cup", "ref": ["human=woman.png", "object=cup.png"]}'


def from_line(text: str, defaults: dict[str, Any], base: str, out: str) -> Job:
    """Return the job of a JSON line. Raises ValueError if the line is malformed; `checks.problems` validates the job."""
    try:
        line = json.loads(text)
    except ValueError as error:
        raise ValueError(f"this is not valid JSON ({error})") from error
    if not isinstance(line, dict):
        raise ValueError(f"a job must be a JSON object, such as {EXAMPLE}")
    values = defaults | {name.replace("-", "_"): _check_type(name, value) for name, value in line.items()}
    missing = [name for name in ("out", "prompt") if name not in values]
    if missing:
        raise ValueError(f"it lacks {' and '.join(missing)}")
    if os.path.isabs(values["out"]) or ".." in Path(values["out"]).parts or "://" in values["out"]:
        raise ValueError(f"out is {values['out']!r}; it must be a relative path inside the --out folder")
    return resolve_paths(values | {"out": f"{out.rstrip('/')}/{values['out']}"}, base)


def _check_type(name: str, value: Any) -> Any:
    """Return a value of a line, checked against its field's type."""
    types = {f.name: value_type(f.type) for f in fields(Job)}
    expected = types.get(name.replace("-", "_"))
    if expected is None:
        raise ValueError(f"unknown key {name!r}; a job has {', '.join(types)}")
    if name in LIST_FIELDS:
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise ValueError(f"{name} must be a list of strings such as {LIST_FIELDS[name]}")
        return tuple(value)
    if expected is float and type(value) is int:
        value = float(value)
    if type(value) is not expected:
        raise ValueError(f"{name} is {json.dumps(value)}; it must be {_type_name(expected)}")
    return value


def _type_name(kind: Any) -> str:
    return {str: "a string", int: "an integer", float: "a number", bool: "true or false"}[kind]


def resolve_paths(values: dict[str, Any], base: str) -> Job:
    """Return a job with these values, its file paths made absolute from the folder `base`."""

    def absolute(file: str) -> str:
        return os.path.join(base, os.path.expanduser(file)) if file else ""

    if values.get("scheduler") in FEW_STEPS:
        values = {"steps": FEW_STEPS[values["scheduler"]], "guidance_scale": 1.0} | values
    pairs = [text.partition("=") for text in values.get("ref", ())]
    refs = tuple(f"{role}={absolute(file)}" if equals else role for role, equals, file in pairs)
    out = values["out"] if "://" in values["out"] else os.path.abspath(values["out"])
    return Job(
        **values
        | {name: absolute(values.get(name, "")) for name in FILE_FIELDS}
        | {"ref": refs, "next_prompt": tuple(values.get("next_prompt", ())), "out": out}
    )


def sweep(job: Job, text: str) -> list[Job]:
    """Return a job per value of a sweep such as "flow-shift=1,3,5", which write out-flow-shift-1.mp4 and so on.

    Raises ValueError for a setting that cannot be swept and for fewer than two distinct values.
    """
    flag, _, value_list = text.partition("=")
    kinds = {f.name: f.type for f in SETTINGS if f.name in SWEEPABLE}
    name = flag.strip().lstrip("-").replace("-", "_")
    if name not in kinds:
        raise ValueError(f"--sweep {text!r}: write SETTING=VALUE,VALUE,… with one of {', '.join(kinds)}")
    values = [value.strip() for value in value_list.split(",") if value.strip()]
    if len(values) < 2 or len(set(values)) < len(values):
        raise ValueError(f"--sweep {text!r}: give at least two distinct values, such as flow-shift=1,3,5,8,12")
    stem, flag = job.out.removesuffix(".mp4"), name.replace("_", "-")
    return [
        replace(job, **{name: parse(v, kinds[name], f"--sweep {text!r}"), "out": f"{stem}-{flag}-{v}.mp4"})
        for v in values
    ]


def num_forward_passes(job: Job) -> int:
    """Return the number of sampling steps of a job, over all windows."""
    from model_zoo.a2 import long

    if not job.is_long():
        return job.steps
    return long.passes(job.windows(), len(job.ref), job.steps, job.causal_block_size, job.ar_step)


def sort_by_shape(jobs: Iterable[Any], job_of: Any = lambda job: job) -> list[Any]:
    """Return the jobs grouped by shape, shapes in order of first appearance, so that compiled code is reused."""
    jobs = list(jobs)
    rank_of: dict[tuple, int] = {}
    for job in jobs:
        rank_of.setdefault(shape(job_of(job)), len(rank_of))
    return sorted(jobs, key=lambda job: rank_of[shape(job_of(job))])


def shape(job: Job) -> tuple[int, ...]:
    """Return the values that determine the sizes of the network's tensors."""
    return job.height, job.width, job.frames, len(job.ref), int(job.is_long())
