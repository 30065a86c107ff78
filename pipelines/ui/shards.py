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


def shards_tab(gr: Any, page: Any, packed: ShardReader) -> None:
    rows = list(packed.rows.values())
    licences = ", ".join(sorted({row["license"] or "no licence" for row in rows}))
    shards = len({row["shard"] for row in rows})
    counts = f"{len(rows)} triplet{'s' * (len(rows) != 1)} from {shards} shard{'s' * (shards != 1)}"
    about = f"{counts} in {packed.folder.root}, {licences}" if rows else f"no triplets in {packed.folder.root}"
    # plain text: Markdown in a data set's licences could inject content into the page
    gr.Textbox(about, label="Shards", interactive=False, lines=1, max_lines=5, elem_id="about")
    if not rows:
        return
    keys = [row["clip_id"] for row in rows]
    with gr.Row(elem_classes="beside"):
        which = gr.Dropdown(keys, value=keys[0], label="Clip", elem_id="clip", scale=3, min_width=300)
        before, after = (gr.Button(word, elem_id=word.lower(), scale=1, min_width=120) for word in ("Previous", "Next"))
    prompt = gr.HighlightedText(
        label="Prompt, with the phrases of its references", combine_adjacent=False, elem_id="phrases"
    )
    with gr.Row():
        video = gr.Video(label="Video", autoplay=True, loop=True, elem_id="clip-video", height=320)
        shown = gr.Gallery(
            label="References, from other clips", columns=3, height="auto", elem_id="references", object_fit="contain",
            buttons=["download", "fullscreen"],
        )  # fmt: skip
    with gr.Row():
        caption, provenance = gr.JSON(label="Caption"), gr.JSON(label="Provenance and passed checks")
    outputs = [prompt, video, shown, caption, provenance]

    def move(clip: str, by: int) -> str:
        return keys[(keys.index(clip) + by) % len(keys)]

    page.load(partial(triplet_outputs, packed), which, outputs, api_name=False)
    which.change(partial(triplet_outputs, packed), which, outputs, api_name=False)
    before.click(lambda clip: move(clip, -1), which, which, api_name=False)
    after.click(lambda clip: move(clip, 1), which, which, api_name=False)


def triplet_outputs(packed: ShardReader, clip: str) -> tuple[Any, ...]:
    """Return what the page shows of a triplet: highlighted prompt, video path, references, caption and provenance."""
    from a2data.media import images

    try:
        triplet = packed.triplet(clip)
        video = Path(packed.videos.name) / safe_name(f"{clip}.mp4", packed.folder.root)
        pictures = {name: images.from_png(data) for name, data in triplet.pictures.items()}
    except (LookupError, ValueError) as error:
        raise gradio_error(error) from error
    video.write_bytes(triplet.video)
    facts = triplet.facts
    labels = [(g.start, g.end, g.name) for g in facts.references if g.phrase]
    gallery = [(pictures[g.name], f"{g.name}: {g.role}, {g.phrase or 'no phrase'}") for g in facts.references]
    provenance = json.loads(json.dumps(asdict(facts), default=str))
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
