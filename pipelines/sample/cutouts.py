"""References that are no cut-outs are cut out by a detector of the zoo before anything is sampled: A2 knows subjects on white."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from a2data.media import images
from model_zoo import cards
from pipelines.sample.job import Job

WHITE, BORDER = 245, 0.9  # a cut-out has at least this share of such pixels on its border
LEAST = 0.01  # of the picture, that a cut-out has


def is_cut_out(picture: np.ndarray) -> bool:
    """Whether a (h, w, 3) uint8 picture stands on white: so does what was transparent, once it is read."""
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return bool((border.min(axis=1) >= WHITE).mean() >= BORDER)


def cut_out(picture: np.ndarray, role: str, detect: Any) -> np.ndarray:
    """The largest person ("human") or thing ("object") in a (h, w, 3) uint8 picture, where it stands, on white.

    detect: a model with the role "detect", see model_zoo.cards. Raises ValueError where it finds none.
    """
    from model_zoo.detect.builtin import grabcut

    found = [d for d in detect(picture[None])[0] if d.kind == role]
    masks = [grabcut.in_box(picture, d.box) if d.mask is None else d.mask for d in found]
    masks = [mask for mask in masks if mask.mean() >= LEAST]
    if not masks:
        raise ValueError(f"no {role} is found in it")
    largest = max(masks, key=lambda mask: mask.sum())
    return np.where(largest[..., None], picture, np.uint8(255))


def check(wanted: Sequence[tuple[str, Job]]) -> None:
    """Raises ValueError for what --matting-model names that is no detector."""
    for where, job in wanted:
        if job.matting_model == "none":
            continue
        try:
            role = cards.card(job.matting_model).role
        except KeyError as error:
            raise ValueError(f"{where}--matting-model {job.matting_model}: {error.args[0]}") from error
        if role != "detect":
            raise ValueError(
                f"{where}--matting-model {job.matting_model} has the role {role}; it must find people and things: detect"
            )


def revisions(jobs: Sequence[Job]) -> dict[str, str]:
    """The revision of every detector that these jobs name, for their keys."""
    return {name: cards.revision(name) for name in {job.matting_model for job in jobs} - {"none"}}


def made(jobs: Sequence[Job]) -> list[Job]:
    """These jobs, with cut-outs in the place of subjects that are none, written beside each video: NAME-cut-0.png.

    Raises ValueError naming the picture in which nobody and nothing is found.
    """
    loaded: dict[str, Any] = {}
    return [job if job.matting_model == "none" else _made(job, loaded) for job in jobs]


def _made(job: Job, loaded: dict[str, Any]) -> Job:
    from model_zoo.a2.references import read_picture

    refs = []
    for number, (role, file) in enumerate(job.references()):
        picture = None if role == "background" else read_picture(file)
        if picture is None or is_cut_out(picture):
            refs.append(f"{role}={file}")
            continue
        if "://" in job.out:
            raise ValueError(
                f"{file} is no cut-out, and cut-outs are written beside the video, which is behind a URL here"
            )
        if job.matting_model not in loaded:
            loaded[job.matting_model] = cards.load(job.matting_model, cards.device())
        try:
            alone = cut_out(picture, role, loaded[job.matting_model])
        except ValueError as error:
            raise ValueError(
                f"{file}: {error}, by {job.matting_model}. Bring it on white or transparent, name another detector "
                "with --matting-model, or take it as it is with --matting-model none"
            ) from error
        path = Path(f"{job.out.removesuffix('.mp4')}-cut-{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.to_png(alone))
        refs.append(f"{role}={path}")
    return replace(job, ref=tuple(refs))
