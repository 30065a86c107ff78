"""A film whose frames say their own number, its sound, and shards of clips that were cut from it."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import tiny_shards

from a2data.dataset import triplet as samples
from a2data.dataset import writer
from a2data.dataset.triplet import Triplet
from a2data.media import video
from a2data.store.folder import Folder
from stages.pack.facts import to_row

HEIGHT, WIDTH, FPS = 64, 96, 30
BITS = 8  # black and white blocks, side by side over the middle of the picture
TONE_HZ = 440


def numbered(number: int) -> np.ndarray:
    """A picture that shows a number in black and white blocks."""
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for bit in range(BITS):
        picture[16:48, bit * WIDTH // BITS : (bit + 1) * WIDTH // BITS] = 235 if number >> bit & 1 else 20
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number that a picture shows, at whatever size."""
    height, width = picture.shape[:2]
    means = picture[height * 3 // 8 : height * 5 // 8].mean(axis=(0, 2)).reshape(BITS, width // BITS).mean(axis=1)
    return sum(int(mean > 128) << bit for bit, mean in enumerate(means))


def write(path: Path, frames: int = 190, fps: int = FPS, sound_from_s: float | None = 1.0) -> Path:
    """A film, mp4, with silence and then a tone from sound_from_s; None: without sound."""
    with av.open(str(path), "w") as file:
        pictures = file.add_stream("libx264", rate=fps, options={"crf": "10"})
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        track = file.add_stream("aac", rate=44_100, layout="mono") if sound_from_s is not None else None
        for n in range(frames):
            file.mux(pictures.encode(av.VideoFrame.from_ndarray(numbered(n), format="rgb24")))
        file.mux(pictures.encode(None))
        if track is not None:
            t = np.arange(frames * 44_100 // fps) / 44_100
            samples = (0.5 * np.sin(2 * np.pi * TONE_HZ * t) * (t >= sound_from_s)).astype(np.float32)
            for start in range(0, len(samples), 1024):
                frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 44_100, start
                file.mux(track.encode(frame))
            file.mux(track.encode(None))
    return path


def clip(path: Path, number: int, first: int, frames: int = 81) -> Triplet:
    """A sample as `segment` cuts it at 15 fps: every other frame of the film from `first`."""
    drawn = tiny_shards.triplet(number, ("human", "object", "background"))
    shown = [first + 2 * n for n in range(frames)]
    prompt = "A red square drifts over a blue ground."
    spans = {"ref0": (0, 12), "ref1": (0, 12), "bg": (25, 38)}
    given = [
        replace(each, phrase=prompt[slice(*spans[each.name])], start=spans[each.name][0], end=spans[each.name][1])
        for each in drawn.facts.references
    ]
    facts = replace(
        drawn.facts,
        path=str(path), video_id="film", frames=frames, width=WIDTH, height=HEIGHT, crop=(0.0, 0.0, WIDTH, HEIGHT),
        source_frames=shown, source_pts_s=[n / FPS for n in shown], references=given,
        caption=replace(drawn.facts.caption, prompt=prompt),
    )  # fmt: skip
    return replace(drawn, facts=facts, video=video.encode([numbered(n) for n in shown], 15.0))


def shards(folder: Path, clips: list[list[Triplet]]) -> Path:
    """Shards with a tar for each list of samples."""
    rows, out = [], Folder(folder)
    for tar, mine in enumerate(clips):
        facts = {t.facts.clip_id: t.facts for t in mine}
        members = ((t.facts.clip_id, samples.to_members(t)) for t in mine)
        rows += [to_row(placed, facts[placed.key]) for placed in writer.write(members, out, tar)]
    writer.finish(out, rows, {})
    return folder
