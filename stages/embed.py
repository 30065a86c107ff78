"""Embeddings of whole clips, by which semantic duplicates are found."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from a2data.records import ClipEmbedding, ClipVideo, Kept
from a2data.stage import Stage
from model_zoo import cards
from model_zoo.embeddings import unit


@dataclass(frozen=True)
class Embed(Stage):
    """Clips -> one embedding each: the mean of its frames and of their mirror images, so that a mirrored copy has the same."""

    reads = {"select": Kept, "segment": ClipVideo}
    writes = ClipEmbedding
    row_noun = "embeddings"

    embedder: str = ""
    """card of role embed, such as mobilenetv2; "" = clips have no embedding, and duplicates are not searched"""
    frames: int = 3
    """frames of each clip"""

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return cards.gpus(self.embedder) if self.embedder else 0

    def models(self) -> dict[str, str]:
        return {self.embedder: cards.revision(self.embedder)} if self.embedder else {}

    def load(self) -> Any:
        return cards.load(self.embedder, cards.device()) if self.embedder else None

    def run(self, embed: Any, kept: list[Kept], films: list[ClipVideo]) -> Iterator[ClipEmbedding]:
        for film in films if embed else ():
            yield ClipEmbedding(film.clip_id, self.embedder, embedding(embed, film.frames, self.frames).tolist())


def embedding(embed: Any, frames: np.ndarray, count: int) -> np.ndarray:
    """Return the embedding of (t, h, w, 3) uint8 frames by `count` of them, (d,) float32 of unit length."""
    at = sorted({int((n + 0.5) * len(frames) / count) for n in range(count)})
    shown = [np.ascontiguousarray(view) for n in at for view in (frames[n], frames[n][:, ::-1])]
    return unit(np.mean(embed(shown, [np.ones(view.shape[:2], bool) for view in shown]), axis=0))
