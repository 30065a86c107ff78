"""The tab that browses packed shards."""

import io
import json
import tempfile
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from a2data.dataset.triplet import Triplet, from_sample
from a2data.store.filename import safe_name
from pipelines.ui.message import gradio_error


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


def shards_tab(gr: Any, page: Any, reader: ShardReader) -> None:
    rows = list(reader.rows.values())
    licences = ", ".join(sorted({row["license"] or "no licence" for row in rows}))
    shards = len({row["shard"] for row in rows})
    counts = f"{len(rows)} triplet{'s' * (len(rows) != 1)} from {shards} shard{'s' * (shards != 1)}"
    summary = f"{counts} in {reader.folder.root}, {licences}" if rows else f"no triplets in {reader.folder.root}"
    # plain text: Markdown in a data set's licences could inject content into the page
    gr.Textbox(summary, label="Shards", interactive=False, lines=1, max_lines=5, elem_id="about")
    if not rows:
        return
    keys = [row["clip_id"] for row in rows]
    with gr.Row(elem_classes="beside"):
        clip_choice = gr.Dropdown(keys, value=keys[0], label="Clip", elem_id="clip", scale=3, min_width=300)
        previous, following = (
            gr.Button(word, elem_id=word.lower(), scale=1, min_width=120) for word in ("Previous", "Next")
        )
    prompt = gr.HighlightedText(
        label="Prompt, with the phrases of its references", combine_adjacent=False, elem_id="phrases"
    )
    with gr.Row():
        video = gr.Video(label="Video", autoplay=True, loop=True, elem_id="clip-video", height=320)
        gallery = gr.Gallery(
            label="References, from other clips", columns=3, height="auto", elem_id="references", object_fit="contain",
            buttons=["download", "fullscreen"],
        )  # fmt: skip
    with gr.Row():
        caption, provenance = gr.JSON(label="Caption"), gr.JSON(label="Provenance and passed checks")
    outputs = [prompt, video, gallery, caption, provenance]

    def move(clip: str, step: int) -> str:
        return keys[(keys.index(clip) + step) % len(keys)]

    page.load(partial(triplet_outputs, reader), clip_choice, outputs, api_name=False)
    clip_choice.change(partial(triplet_outputs, reader), clip_choice, outputs, api_name=False)
    previous.click(lambda clip: move(clip, -1), clip_choice, clip_choice, api_name=False)
    following.click(lambda clip: move(clip, 1), clip_choice, clip_choice, api_name=False)


def triplet_outputs(reader: ShardReader, clip: str) -> tuple[Any, ...]:
    """Return the outputs of the page for a triplet: highlighted prompt, video path, references, caption and provenance."""
    from a2data.media import images

    try:
        triplet = reader.triplet(clip)
        video = Path(reader.videos.name) / safe_name(f"{clip}.mp4", reader.folder.root)
        pictures = {name: images.from_png(data) for name, data in triplet.pictures.items()}
    except (LookupError, ValueError) as error:
        raise gradio_error(error) from error
    video.write_bytes(triplet.video)
    meta = triplet.facts
    labels = [(reference.start, reference.end, reference.name) for reference in meta.references if reference.phrase]
    gallery = [
        (pictures[reference.name], f"{reference.name}: {reference.role}, {reference.phrase or 'no phrase'}")
        for reference in meta.references
    ]
    provenance = json.loads(json.dumps(asdict(meta), default=str))
    caption = provenance.pop("caption")
    return highlight(triplet.prompt, labels), str(video), gallery, caption, provenance


def highlight(prompt: str, spans: list[tuple[int, int, str]]) -> list[tuple[str, str | None]]:
    """Return the prompt in pieces, each with the names of the references whose phrase covers it, or None."""
    edges = sorted({0, len(prompt), *(edge for start, end, _ in spans for edge in (start, end))})
    pieces = []
    for start, end in pairwise(edges):
        names = [name for low, high, name in spans if low <= start and end <= high]
        pieces.append((prompt[start:end], " ".join(names) or None))
    return pieces
