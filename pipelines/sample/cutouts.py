"""Cut out reference subjects that are not on white, with a detector of the zoo: A2 was trained on subjects on white."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from a2data.media import images
from a2data.media.pictures import read_picture
from model_zoo import cards
from pipelines.sample.job import Job

MIN_WHITE, MIN_BORDER = (
    245,
    0.9,
)  # smallest value of a white pixel; smallest fraction of white border pixels of a cut-out
MIN_AREA = 0.01  # smallest area of a cut-out, as a fraction of the image


def is_cut_out(picture: np.ndarray) -> bool:
    """Return whether a (h, w, 3) uint8 image has a white background; transparency is read as white."""
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return bool((border.min(axis=1) >= MIN_WHITE).mean() >= MIN_BORDER)


def cut_out(picture: np.ndarray, role: str, detect: Any) -> np.ndarray:
    """Return a (h, w, 3) uint8 image with everything but the largest person ("human") or object ("object") set to white.

    detect: a model with the role "detect", see model_zoo.cards. Raises ValueError if nothing is detected.
    """
    from model_zoo.detect.builtin import grabcut

    detections = [d for d in detect(picture[None])[0] if d.kind == role]
    masks = [grabcut.in_box(picture, d.box) if d.mask is None else d.mask for d in detections]
    masks = [mask for mask in masks if mask.mean() >= MIN_AREA]
    if not masks:
        raise ValueError(f"no {role} was detected")
    largest = max(masks, key=lambda mask: mask.sum())
    return np.where(largest[..., None], picture, np.uint8(255))


def check(jobs: Sequence[tuple[str, Job]]) -> None:
    """Raise ValueError if a job's matting model is unknown or not a detector."""
    for position, job in jobs:
        if job.matting_model == "none":
            continue
        try:
            role = cards.card(job.matting_model).role
        except KeyError as error:
            raise ValueError(f"{position}--matting-model {job.matting_model}: {error.args[0]}") from error
        if role != "detect":
            raise ValueError(
                f"{position}--matting-model {job.matting_model} has the role {role}; choose a model with the role detect"
            )


def revisions(jobs: Sequence[Job]) -> dict[str, str]:
    """Return the revision of every detector that these jobs use, for their keys."""
    return {name: cards.revision(name) for name in {job.matting_model for job in jobs} - {"none"}}


def with_cutouts(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs with subjects replaced by cut-outs where needed; these are written next to each video: NAME-cut-0.png.

    Raises ValueError with the path of an image in which nothing is detected.
    """
    detectors: dict[str, Any] = {}
    return [job if job.matting_model == "none" else _with_cutouts(job, detectors) for job in jobs]


def _with_cutouts(job: Job, detectors: dict[str, Any]) -> Job:
    refs = []
    for number, (role, file) in enumerate(job.references()):
        picture = None if role == "background" else read_picture(file)
        if picture is None or is_cut_out(picture):
            refs.append(f"{role}={file}")
            continue
        if "://" in job.out:
            raise ValueError(
                f"{file} is not a cut-out, and cut-outs cannot be written next to a video at a URL: use a local --out, an image "
                "on white, or --matting-model none"
            )
        if job.matting_model not in detectors:
            detectors[job.matting_model] = cards.load(job.matting_model, cards.device())
        try:
            cutout = cut_out(picture, role, detectors[job.matting_model])
        except ValueError as error:
            raise ValueError(
                f"{file}: {error} by {job.matting_model}. Use an image on a white or transparent background, choose another "
                "detector with --matting-model, or use the image unchanged with --matting-model none"
            ) from error
        path = Path(f"{job.out.removesuffix('.mp4')}-cut-{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.to_png(cutout))
        refs.append(f"{role}={path}")
    return replace(job, ref=tuple(refs))
