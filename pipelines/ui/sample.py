"""The tab that samples videos: uploads by role, progress with times, cancellation, and the results."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.html.page import data_uri, fragment
from pipelines.run.settings import value_type
from pipelines.sample import checks, cutouts
from pipelines.sample import job as jobs
from pipelines.sample.job import Job
from pipelines.ui.message import gradio_error

ROLES = {"human": "People", "object": "Objects", "background": "Background"}
UPDATE_S = 0.5  # time between two updates of the progress
SETTING_NAMES = (
    "height",
    "width",
    "frames",
    "steps",
    "guidance_scale",
    "reference_guidance_scale",
    "flow_shift",
    "scheduler",
    "seed",
    "negative_prompt",
)


def sample_tab(gr: Any, runner: "SingleFlight", out: str) -> None:
    """Add the tab. runner: the checkpoint. out: folder of the videos."""
    defaults = {f.name: f.default for f in jobs.SETTINGS} | runner.checkpoint.defaults
    with gr.Row():
        with gr.Column(min_width=300):
            prompt = gr.Textbox(label="Prompt", lines=3, placeholder="A woman drinks from a red cup.", elem_id="prompt")
            with gr.Row():
                uploads = [
                    gr.Gallery(
                        label=name, file_types=["image"], type="filepath", interactive=True, columns=2,
                        height=180, object_fit="contain", allow_preview=False, buttons=[], elem_id=role, min_width=160,
                    )
                    for role, name in ROLES.items()
                ]  # fmt: skip
            cut = gr.Checkbox(True, label="Cut out people and objects that are not on white")
            values = _settings_fields(gr, defaults)
            with gr.Row():
                start = gr.Button("Sample", variant="primary", elem_id="start", min_width=120)
                cancel = gr.Button("Cancel", variant="stop", elem_id="cancel", interactive=False, min_width=120)
        with gr.Column(min_width=300):
            status = gr.HTML(elem_id="status")
            # shown until there is a video, since Gradio's own placeholder has no text
            placeholder = gr.HTML(fragment("ui/space.html"))
            video = gr.Video(label="Video", autoplay=True, loop=True, elem_id="video", visible=False)
    sheet = gr.HTML(elem_id="sheet")
    with gr.Accordion("How it was made", open=False, elem_id="record", visible=False) as record_box:
        record = gr.JSON(show_label=False)

    def start_sampling(request: gr.Request, *inputs: Any) -> Iterator[tuple[Any, ...]]:
        for update, text, busy in sample_updates(runner, out, request.session_hash or "", *inputs):
            outputs_update: tuple[Any, ...] = (gr.skip(),) * 5
            if update:
                path, *others = update
                has_video = bool(path)
                outputs_update = (
                    gr.update(value=path, visible=has_video), *others,
                    gr.update(visible=has_video), gr.update(visible=not has_video),
                )  # fmt: skip
            yield *outputs_update, text, gr.update(interactive=not busy), gr.update(interactive=busy)

    def stop(request: gr.Request) -> None:
        runner.cancel(request.session_hash or "")

    outputs = [video, sheet, record, record_box, placeholder, status, start, cancel]
    # several at a time, since those that wait can be cancelled, too: SingleFlight samples one after another
    start.click(
        start_sampling,
        [prompt, *uploads, cut, *values],
        outputs,
        concurrency_limit=8,
        show_progress="hidden",
        api_name=False,
    ).failure(
        lambda: ("", gr.update(interactive=True), gr.update(interactive=False)), None, outputs[5:], api_name=False
    )
    cancel.click(stop, None, None, show_progress="hidden", api_name=False)


def _settings_fields(gr: Any, defaults: dict[str, Any]) -> list[Any]:
    """Add the fields of the settings, in the order of SETTING_NAMES."""
    narrow = {"min_width": 130}
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        with gr.Row():
            height = gr.Number(defaults["height"], label="Height, px", precision=0, elem_id="height", **narrow)
            width = gr.Number(defaults["width"], label="Width, px", precision=0, elem_id="width", **narrow)
            frames = gr.Number(defaults["frames"], label="Frames, 4 n + 1", precision=0, elem_id="frames", **narrow)
        with gr.Row():
            steps = gr.Number(defaults["steps"], label="Steps", precision=0, elem_id="steps", **narrow)
            guidance = gr.Number(defaults["guidance_scale"], label="Guidance", **narrow)
            references = gr.Number(defaults["reference_guidance_scale"], label="Guidance on references", **narrow)
        with gr.Row():
            shift = gr.Number(defaults["flow_shift"], label="Flow shift", **narrow)
            scheduler = gr.Dropdown(list(jobs.SCHEDULERS), value=defaults["scheduler"], label="Scheduler", **narrow)
            seed = gr.Number(defaults["seed"], label="Seed", precision=0, **narrow)
        negative = gr.Textbox(defaults["negative_prompt"], label="Negative prompt", lines=2)
    return [height, width, frames, steps, guidance, references, shift, scheduler, seed, negative]


class CancelledError(Exception):
    """The video is no longer wanted."""


@dataclass
class Progress:
    """State of one video: written by the thread that samples it, read by the page."""

    total: int  # forward passes
    phase: str = "starting"
    done: int = 0
    started_s: float = field(default_factory=time.monotonic)
    sampling_s: float = 0.0  # time of the first step's start
    cancelled: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def enter(self, phase: str) -> None:
        """Begin a phase. Raises CancelledError."""
        self.phase = phase
        if self.cancelled.is_set():
            raise CancelledError

    def step(self) -> None:
        """Count a step. Raises CancelledError."""
        self.done += 1
        self.enter("sampling")

    def html(self, outcome: str = "") -> str:
        """Return the bar and the times. outcome: how the video ended; "" while it is made."""
        now = time.monotonic()
        remaining_s = (now - self.sampling_s) / self.done * (self.total - self.done) if self.done else None
        phase = "cancelling after this step" if self.cancelled.is_set() and not outcome else self.phase
        return fragment(
            "ui/progress.html",
            progress=self,
            phase=phase,
            end=outcome,
            left_s=remaining_s,
            passed_s=now - self.started_s,
        )


class SingleFlight:
    """A pipelines.sample.checkpoint.Checkpoint, loaded on first use, that samples one video at a time."""

    def __init__(self, checkpoint: Any, device: str | None):
        self.checkpoint, self.device, self.lock = checkpoint, device, threading.Lock()
        self.sampler: Any = None
        self.running: dict[str, Progress] = {}  # by session

    def cancel(self, session: str) -> None:
        """Cancel the video of a session, if it has one."""
        if progress := self.running.get(session):
            progress.cancelled.set()

    def sample(self, job: Job, digests: dict[str, str], progress: Progress) -> Job:
        """Sample a job's video and write it under the first free number. Raises CancelledError."""
        from pipelines.sample.checkpoint import resolve_device
        from pipelines.sample.record import make_request
        from pipelines.sample.sampler import Sampler
        from pipelines.sample.stage import sample_to_file

        while not self.lock.acquire(timeout=UPDATE_S):
            progress.enter("waiting for the video before")
        try:
            progress.enter("cutting out the references")
            job = replace(job, out=free_path(Path(job.out).parent))
            request = make_request(self.checkpoint, self.device, job, digests)
            request = request._replace(job=cutouts.with_cutouts([request.job])[0])
            progress.enter("loading the checkpoint")
            if self.sampler is None:
                self.sampler = Sampler(self.checkpoint, *resolve_device(self.device))
            progress.enter("sampling")
            progress.sampling_s = time.monotonic()
            sample_to_file(self.sampler, request, progress.step)
            return job
        finally:
            self.lock.release()


def sample_updates(
    runner: SingleFlight, out: str, session: str, prompt: str, *inputs: Any
) -> Iterator[tuple[tuple[Any, ...] | None, str, bool]]:
    """Sample the video that the page describes. Yields the displayed values, progress as HTML, and whether it is running.

    Displayed values: path of the video, contact sheet as HTML, and record; nothing at the beginning; None for no change.
    inputs: uploads of humans, objects and background, whether to cut out, then the values of SETTING_NAMES. Raises gr.Error,
    which the page shows.
    """
    files = tuple([path for path, _ in gallery or []] for gallery in inputs[:3])
    try:
        job = make_job(prompt or "", files, bool(inputs[3]), dict(zip(SETTING_NAMES, inputs[4:], strict=True)), out)
        # settings that the page does not show, such as fps
        job = replace(job, **{name: v for name, v in runner.checkpoint.defaults.items() if name not in SETTING_NAMES})
        digests = checks.validate([("", job)], runner.checkpoint.conditioning)
    except (ValueError, OSError, ImportError) as error:
        raise gradio_error(error) from error
    runner.cancel(session)
    progress = runner.running[session] = Progress(jobs.num_forward_passes(job))
    finished: list[Job] = []
    thread = threading.Thread(
        target=_record_error, args=(progress, lambda: finished.append(runner.sample(job, digests, progress)))
    )
    thread.start()
    update: tuple[Any, ...] | None = (None, "", None)
    try:
        while thread.is_alive():
            yield update, progress.html(), True
            update = None
            thread.join(UPDATE_S)
    finally:  # also if the page is closed
        progress.cancelled.set()
    if isinstance(progress.error, CancelledError):
        yield None, progress.html("cancelled"), False
    elif isinstance(progress.error, (ValueError, OSError, ImportError)):
        raise gradio_error(progress.error) from progress.error
    elif progress.error:  # a fault of the program: Gradio prints it
        raise progress.error
    else:
        out = finished[0].out
        stem = out.removesuffix(".mp4")
        sheet = fragment("ui/sheet.html", picture=data_uri(Path(f"{stem}.png").read_bytes(), "image/png"))
        record = json.loads(Path(f"{stem}.json").read_text())
        yield (out, sheet, record), progress.html(f"saved as {out}"), False


def _record_error(progress: Progress, function: Callable[[], None]) -> None:
    try:
        function()
    except Exception as error:  # raised where the page shows it
        progress.error = error


def make_job(prompt: str, files: tuple[Any, ...], cut: bool, values: dict[str, Any], out: str) -> Job:
    """Return the job that the page describes; its video gets the first free number in `out`."""
    problems = [] if prompt.strip() else ["the prompt is empty: describe the video"]
    if not any(files):
        problems.append("no reference: upload an image of a person, an object or a background")
    if problems:
        raise ValueError("\n".join(problems))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, Any] = {f.name: value_type(f.type) for f in jobs.SETTINGS}
    empty = [name for name, value in values.items() if value is None]
    if empty:
        raise ValueError(f"{' and '.join(empty)}: enter a number")
    settings = {name: kinds[name](value) for name, value in values.items()}
    refs = [f"{role}={os.path.abspath(file)}" for role, paths in zip(ROLES, files, strict=True) for file in paths or []]
    return jobs.resolve_paths(
        {"out": free_path(folder), "prompt": prompt, "ref": refs, "preview": True}
        | settings
        | {"matting_model": Job.matting_model if cut else "none"},
        os.getcwd(),
    )


def free_path(folder: Path) -> str:
    """Return the path of the first numbered video that does not exist in a folder."""
    return str(next(path for n in range(1, 1 << 30) if not (path := folder / f"{n:04d}.mp4").exists()))
