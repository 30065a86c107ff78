"""`a2data ui`: a local Gradio page to sample videos and browse packed shards."""

import html
import io
import json
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from a2data.dataset.triplet import Triplet, from_sample
from a2data.store.filename import safe_name
from pipelines.run.settings import scalar
from pipelines.sample import checks, cutouts
from pipelines.sample import job as jobs
from pipelines.sample.job import Job

LOOPBACK = "127.0.0.1"
SHOWN_S = 20  # display time of an error message, seconds
ROLES = {"human": "People", "object": "Things", "background": "Place"}
CSS = "footer {display: none !important} .gradio-container {max-width: 1400px !important; width: 100%; margin: 0 auto !important}"


def serve(made: Any, host: str = LOOPBACK, port: int | None = None, out: str = "videos") -> Any:
    """Start the server without blocking and return the page."""
    import gradio as gr

    # system fonts: others would be fetched from the network
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    made.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, theme=theme, css=CSS, show_error=True,
        allowed_paths=[os.path.abspath(out)], share=False, enable_monitoring=False, ssr_mode=False,
    )  # fmt: skip
    return made


def page(checkpoint: str | None, shards: str | None, out: str, device: str | None = None) -> Any:
    """Return the page, with a tab to sample if there is a checkpoint and a tab of shards if there are shards.

    The checkpoint is loaded on the first request. Raises ValueError if neither is given, FileNotFoundError for a folder that is
    not a checkpoint or has no shards, ModuleNotFoundError without gradio.
    """
    if not checkpoint and not shards:
        raise ValueError("nothing to show: give a --checkpoint to sample with, --shards to browse, or both")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    with gr.Blocks(title="a2data", analytics_enabled=False, fill_width=True) as made:
        gr.Markdown("# a2data")
        if checkpoint:
            from pipelines.sample.checkpoint import Checkpoint

            opened = Checkpoint.with_references(checkpoint)
            with gr.Tab("Sample"):
                _sample_tab(gr, partial(sampled, SingleFlight(opened, device), out), opened.defaults)
        if shards:
            with gr.Tab("Shards"):
                _shards_tab(gr, made, ShardReader(shards))
    return made


# -- sampling ----------------------------------------------------------------------------------------------------------


def _sample_tab(gr: Any, sample: Callable[..., Any], defaults: dict[str, Any]) -> None:
    plain = {f.name: f.default for f in jobs.SETTINGS} | defaults
    with gr.Row():
        with gr.Column(scale=1):
            prompt = gr.Textbox(label="Prompt", lines=3, placeholder="A woman drinks from a red cup.", elem_id="prompt")
            shown = [
                gr.File(
                    label=f"{name}: pictures", file_count="multiple", file_types=["image"], elem_id=role, height=150
                )
                for role, name in ROLES.items()
            ]
            cut = gr.Checkbox(True, label="Cut out people and objects that are not on white")
            with gr.Accordion("Settings", open=False, elem_id="settings"):
                with gr.Row():
                    height = gr.Number(plain["height"], label="Height, px", precision=0, elem_id="height")
                    width = gr.Number(plain["width"], label="Width, px", precision=0, elem_id="width")
                    frames = gr.Number(plain["frames"], label="Frames, 4 n + 1", precision=0, elem_id="frames")
                with gr.Row():
                    steps = gr.Number(plain["steps"], label="Steps", precision=0, elem_id="steps")
                    guidance = gr.Number(plain["guidance_scale"], label="Guidance")
                    references = gr.Number(plain["reference_guidance_scale"], label="Guidance on references")
                with gr.Row():
                    shift = gr.Number(plain["flow_shift"], label="Flow shift")
                    scheduler = gr.Dropdown(list(jobs.SCHEDULERS), value=plain["scheduler"], label="Scheduler")
                    seed = gr.Number(plain["seed"], label="Seed", precision=0)
                negative = gr.Textbox(plain["negative_prompt"], label="Negative prompt", lines=2)
            start = gr.Button("Sample", variant="primary", elem_id="start")
        with gr.Column(scale=1):
            video = gr.Video(label="Video", autoplay=True, loop=True, elem_id="video")
            # Markdown, because a label would cover the image
            gr.Markdown("References as the network sees them, and frames")
            sheet = gr.Image(show_label=False, elem_id="sheet", buttons=["download", "fullscreen"])
            with gr.Accordion("How it was made", open=False):
                record = gr.JSON(show_label=False)
    values = [height, width, frames, steps, guidance, references, shift, scheduler, seed, negative]
    start.click(sample, [prompt, *shown, cut, *values], [video, sheet, record], concurrency_limit=1, api_name=False)


NAMES = (
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


class SingleFlight:
    """A pipelines.sample.checkpoint.Checkpoint, loaded on first use, that samples one video at a time."""

    def __init__(self, checkpoint: Any, device: str | None):
        self.checkpoint, self.device, self.lock = checkpoint, device, threading.Lock()
        self.sampler: Any = None

    def sample(self, task: Any, on_step: Callable[[], None]) -> None:
        """Sample a job's video and write it."""
        from pipelines.sample.checkpoint import placed
        from pipelines.sample.sampler import Sampler
        from pipelines.sample.stage import sample_to_file

        with self.lock:
            if self.sampler is None:
                self.sampler = Sampler(self.checkpoint, *placed(self.device))
            sample_to_file(self.sampler, task, on_step)


def sampled(
    once: SingleFlight, out: str, prompt: str, *rest: Any, progress: Any = None
) -> tuple[str, str, dict[str, Any]]:
    """Sample the video that the page describes. Returns the paths of the video and its contact sheet, and its record.

    rest: files of humans, objects and background, whether to cut out, then the values of NAMES. Raises gr.Error, which the page
    shows.
    """
    import gradio as gr

    from pipelines.sample.record import prepared

    files, cut, values = rest[:3], rest[3], dict(zip(NAMES, rest[4:], strict=True))
    progress = progress or gr.Progress()
    try:
        job = job_of(prompt or "", files, bool(cut), values, out)
        # settings that the page does not show, such as fps
        job = replace(job, **{name: v for name, v in once.checkpoint.defaults.items() if name not in NAMES})
        digests = checks.validated([("", job)], once.checkpoint.conditioning)
        progress(0, desc="cut-outs")
        task = prepared(once.checkpoint, once.device, job, digests)
        task = task._replace(job=cutouts.made([task.job])[0])
        total, done = jobs.num_forward_passes(job), iter(range(1, 1 << 30))
        progress(0, desc="loading the checkpoint")
        once.sample(task, lambda: progress((next(done), total), desc="sampling", unit="steps"))
    except (ValueError, OSError, ImportError) as error:
        raise told(error) from error
    stem = job.out.removesuffix(".mp4")
    return job.out, f"{stem}.png", json.loads(Path(f"{stem}.json").read_text())


def told(error: Exception) -> Exception:
    """Return a gr.Error with the escaped message, since Gradio renders messages as HTML."""
    import gradio as gr

    lines = "<br>".join(html.escape(line) for line in str(error).splitlines())
    return gr.Error(lines, duration=SHOWN_S, print_exception=False)


def job_of(prompt: str, files: tuple[Any, ...], cut: bool, values: dict[str, Any], out: str) -> Job:
    """Return the job that the page describes; its video gets the first free number in `out`."""
    lacking = [] if prompt.strip() else ["the prompt is empty: describe the video"]
    if not any(files):
        lacking.append("no reference: upload an image of a person, an object or a background")
    if lacking:
        raise ValueError("\n".join(lacking))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    number = next(n for n in range(1, 1 << 30) if not (folder / f"{n:04d}.mp4").exists())
    kinds: dict[str, Any] = {f.name: scalar(f.type) for f in jobs.SETTINGS}
    empty = [name for name, value in values.items() if value is None]
    if empty:
        raise ValueError(f"{' and '.join(empty)}: enter a number")
    typed = {name: kinds[name](value) for name, value in values.items()}
    refs = [f"{role}={os.path.abspath(file)}" for role, some in zip(ROLES, files, strict=True) for file in some or []]
    return jobs.located(
        {"out": str(folder / f"{number:04d}.mp4"), "prompt": prompt, "ref": refs, "preview": True}
        | typed
        | {"matting_model": Job.matting_model if cut else "none"},
        os.getcwd(),
    )


# -- shards ------------------------------------------------------------------------------------------------------------


class ShardReader:
    """Triplets of a folder of shards, read one at a time by their offset in a tar."""

    def __init__(self, root: str):
        import pyarrow.parquet as parquet

        from a2data.store.folder import Folder

        self.folder = Folder(root)
        data = self.folder.get("index.parquet")
        if data is None:
            raise FileNotFoundError(f"{root} has no index.parquet: it is not a folder of packed shards")
        self.videos = tempfile.TemporaryDirectory(prefix="a2data-ui-")
        self.rows = {row["clip_id"]: row for row in parquet.read_table(io.BytesIO(data)).to_pylist()}

    def triplet(self, clip: str) -> Triplet:
        """Return a clip's triplet. Raises ValueError if its shard is missing, damaged or outside the folder."""
        from a2data.dataset.writer import read_sample

        row = self.rows[clip]
        try:
            return from_sample(read_sample(self.folder, clip, row["shard"], row["offset"], row["bytes"]))
        except (AttributeError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{clip} cannot be read from {row['shard']} ({error}): pack it again") from error


def _shards_tab(gr: Any, page: Any, packed: ShardReader) -> None:
    rows = list(packed.rows.values())
    first = rows[0]["clip_id"] if rows else None
    licences = ", ".join(sorted({row["license"] or "no licence" for row in rows}))
    about = (
        f"{len(rows)} triplets from {len({row['shard'] for row in rows})} shards in {packed.folder.root}, {licences}"
    )
    # plain text: Markdown in a data set's licences could inject content into the page
    gr.Textbox(about, show_label=False, container=False, interactive=False, lines=1, max_lines=5, elem_id="about")
    with gr.Row():
        which = gr.Dropdown([row["clip_id"] for row in rows], value=first, label="Clip", elem_id="clip", scale=3)
        before, after = (gr.Button(word, elem_id=word.lower(), scale=1) for word in ("Previous", "Next"))
    prompt = gr.HighlightedText(
        label="Prompt, with the phrases of its references", combine_adjacent=False, elem_id="phrases"
    )
    with gr.Row():
        video = gr.Video(label="Video", autoplay=True, loop=True, elem_id="clip-video", height=320)
        shown = gr.Gallery(
            label="References, from other clips", columns=3, height=320, elem_id="references", object_fit="contain"
        )
    with gr.Row():
        caption, provenance = gr.JSON(label="Caption"), gr.JSON(label="Provenance and passed checks")
    outputs = [prompt, video, shown, caption, provenance]
    keys = [row["clip_id"] for row in rows]

    def move(clip: str, by: int) -> str:
        return keys[(keys.index(clip) + by) % len(keys)]

    if keys:
        page.load(partial(looked_at, packed), which, outputs, api_name=False)
        which.change(partial(looked_at, packed), which, outputs, api_name=False)
        before.click(lambda clip: move(clip, -1), which, which, api_name=False)
        after.click(lambda clip: move(clip, 1), which, which, api_name=False)


def looked_at(packed: ShardReader, clip: str) -> tuple[Any, ...]:
    """Return what the page shows of a triplet: highlighted prompt, video path, references, caption and provenance."""
    from a2data.media import images

    try:
        triplet = packed.triplet(clip)
        video = Path(packed.videos.name) / safe_name(f"{clip}.mp4", packed.folder.root)
        pictures = {name: images.from_png(data) for name, data in triplet.pictures.items()}
    except (LookupError, ValueError) as error:
        raise told(error) from error
    video.write_bytes(triplet.video)
    facts = triplet.facts
    labels = [(g.start, g.end, g.name) for g in facts.references if g.phrase]
    gallery = [(pictures[g.name], f"{g.name}: {g.role}, {g.phrase or 'no phrase'}") for g in facts.references]
    said = json.loads(json.dumps(asdict(facts), default=str))
    caption = said.pop("caption")
    return highlighted(triplet.prompt, labels), str(video), gallery, caption, said


def highlighted(prompt: str, spans: list[tuple[int, int, str]]) -> list[tuple[str, str | None]]:
    """Return the prompt in pieces, each with the names of the references whose phrase covers it, or None."""
    edges = sorted({0, len(prompt), *(edge for start, end, _ in spans for edge in (start, end))})
    pieces = []
    for start, end in pairwise(edges):
        names = [name for low, high, name in spans if low <= start and end <= high]
        pieces.append((prompt[start:end], " ".join(names) or None))
    return pieces
