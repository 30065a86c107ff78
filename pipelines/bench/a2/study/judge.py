"""Judge: a vision-language model with an OpenAI-compatible chat API fills in the study's form, and is marked as a model.

It gets what a rater gets: the references, the prompt, frames of one video and the questions with their anchors, but not the name
of the system. It rates videos one at a time, since such judges have a position bias (Zheng et al. 2023, arXiv 2306.05685).
"""

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from a2data.media import video
from a2data.media.pictures import read_picture
from a2data.store.filename import safe_name
from model_zoo.caption.endpoint import data_url
from model_zoo.caption.schema import Ask, Completion
from pipelines.bench.a2.cases import Case
from pipelines.bench.a2.study import page as study
from pipelines.bench.a2.study import ratings

FRAMES = 16  # of a video that it is shown: as many as OpenS2V's judge
MAX_SIDE_PX = 512  # of a side of what it is shown
CONCURRENCY = 8  # requests in flight


def judge_videos(
    ask: Ask,
    name: str,
    cases: Sequence[Case],
    key: Mapping[str, Any],
    videos: Mapping[str, Path],
    concurrency: int = CONCURRENCY,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a model's form in the page's export format, and {"case/slot": why answers are missing}.

    ask: sends a request to the model. key: the study's key, for its slots. videos: system -> folder of its <case>.mp4.
    """
    case_of = {case.id: case for case in cases}
    requests = [
        (case_of[case], slot, videos[system]) for case, slots in key["slots"].items() for slot, system in slots.items()
    ]
    rows, failed = [], {}

    def judge_one(case: Case, slot: str, folder: Path) -> list[dict[str, Any]] | str:
        try:
            scores = judge_video(ask, case, folder / safe_name(f"{case.id}.mp4", "id of a case"))
        except (RuntimeError, ValueError) as error:
            return str(error)
        return [{"case": case.id, "slot": slot, "criterion": name, "score": score} for name, score in scores.items()]

    with ThreadPoolExecutor(concurrency) as pool:
        for (case, slot, _), result in zip(
            requests, pool.map(lambda request: judge_one(*request), requests), strict=True
        ):
            if isinstance(result, str):
                failed[f"{case.id}/{slot}"] = result
            else:
                rows += result
    rater = {"name": name, "kind": "model"}
    return {"format": ratings.FORMAT, "study": key["study"], "rater": rater, "ratings": rows}, failed


def judge_video(ask: Ask, case: Case, path: Path) -> dict[str, int]:
    """Return {criterion: answer} for one video. Retries once after an invalid answer, then raises ValueError."""
    messages = make_messages(case, video.decode(path.read_bytes()))
    for is_last in (False, True):
        completion = ask(messages, schema())
        try:
            return _parse_answers(completion)
        except ValueError as error:
            if is_last:
                raise ValueError(f"the model gave no answers that the form has: {error}") from error
            messages = [
                *messages,
                {"role": "user", "content": f"That does not fit: {error}. Answer again, JSON alone."},
            ]
    raise AssertionError


def make_messages(case: Case, frames: np.ndarray) -> list[dict[str, Any]]:
    """Return the request as messages for `model_zoo.caption.endpoint`. frames: (t, h, w, 3) uint8 RGB."""
    pictures: list[dict[str, Any]] = []
    for number, element in enumerate(case.elements, 1):
        pictures.append({"type": "text", "text": f"Picture {number}, {element.role} {element.label}".strip() + ":"})
        pictures.append(_image_part(read_picture(element.path)))
    indices = [round(n) for n in np.linspace(0, len(frames) - 1, min(FRAMES, len(frames)))]
    questions = "\n".join(
        f"{name}: {c.asks} " + "; ".join(f"{score} = {anchor}" for score, anchor in c.anchors.items())
        for name, c in study.CRITERIA.items()
    )
    return [
        {
            "role": "system",
            "content": "You rate a video that was made from pictures and a text. Answer as the questions say.",
        },
        {
            "role": "user",
            "content": [
                *pictures,
                {"type": "text", "text": f"The text: {case.prompt}\nFrames of the video, in order:"},
                *(_image_part(frames[n]) for n in indices),
                {"type": "text", "text": f"Answer each question by one of its numbers, as a JSON object:\n{questions}"},
            ],
        },
    ]


def schema() -> dict[str, Any]:
    """Return the JSON schema of the answers: one of its own scores for every criterion."""
    fields = {name: {"type": "integer", "enum": list(c.anchors)} for name, c in study.CRITERIA.items()}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _parse_answers(completion: Completion) -> dict[str, int]:
    """Return the answers. Raises ValueError with a message for the model."""
    match = re.search(r"\{.*\}", completion.text, re.DOTALL)
    if not completion.whole or not match:
        raise ValueError("it was cut off" if not completion.whole else f"{completion.text[:80]!r} has no JSON object")
    data = json.loads(match[0])
    for name, criterion in study.CRITERIA.items():
        if type(data.get(name)) is not int or data[name] not in criterion.anchors:
            raise ValueError(f"{name} is {data.get(name)!r}, not one of {', '.join(map(str, criterion.anchors))}")
    return {name: data[name] for name in study.CRITERIA}


def _image_part(pixels: np.ndarray) -> dict[str, Any]:
    """Return an image as a part of a message."""
    scale = MAX_SIDE_PX / max(pixels.shape[:2])
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    return {"type": "image_url", "image_url": {"url": data_url(small)}}
