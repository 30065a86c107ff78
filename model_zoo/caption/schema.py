"""SkyReels-V2's structured caption for language models: schema, request, and parsing of answers.

This file has no network. `ask(messages, schema) -> Completion` is one: a server (model_zoo/caption/endpoint.py) or local weights
(model_zoo/caption/qwen_vl.py). messages follow the OpenAI chat API, except that frames are a part {"type": "frames", "frames":
(n, h, w, 3) uint8 RGB, "seconds": [float]}, which each backend converts.

A model with `uses_hints = False` ignores the measured hints, so that they need not be measured.

SkyReels-V2 (Chen et al. 2025, arXiv 2504.13074) and its captioner's script, skycaptioner_v1/scripts/vllm_struct_caption.py.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

CHOICES = {
    "shot_type": ("long_shot", "full_shot", "medium_shot", "close_up", "extreme_close_up"),
    "shot_angle": ("eye_level", "high_angle", "low_angle"),
    "shot_position": (
        *("front_view", "back_view", "side_view", "over_the_shoulder"),
        *("overhead_view", "point_of_view", "aerial_view", "overlooking_view"),
    ),
}
TEXTS = ("camera_motion", "environment", "lighting")
SUBJECT_TEXTS = ("appearance", "action", "expression", "position")
SUBJECT_FIELDS = ("type", "sub_type", *SUBJECT_TEXTS)

FRAMES = 16  # of a clip, evenly spaced, as for SkyCaptioner-V1
AREA_PX = 360 * 420  # of a frame, as there; but at its true aspect ratio, not resized to 360 x 420
MAX_SUBJECTS = 12  # a model that lists more is in a loop


class Completion(NamedTuple):
    """The answer of a language model."""

    text: str
    whole: bool  # False: truncated at the token limit


Ask = Callable[[list[dict[str, Any]], dict[str, Any] | None], Completion]
Read = TypeVar("Read")


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema with all fields required and no others allowed, as OpenAI's strict mode demands."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _field(name: str) -> dict[str, Any]:
    return {"type": "string", "enum": [*CHOICES[name], "other"]} if name in CHOICES else {"type": "string"}


SUBJECT = _object(
    {
        "TYPES": _object({"type": {"type": "string"}, "sub_type": {"type": "string"}}),
        **{name: {"type": "string"} for name in SUBJECT_TEXTS},
        "is_main_subject": {"type": "boolean"},
    }
)
SCHEMA = _object(
    {
        "subjects": {"type": "array", "items": SUBJECT, "maxItems": MAX_SUBJECTS},
        **{name: _field(name) for name in (*CHOICES, *TEXTS)},
    }
)

FIELD_MEANINGS = {
    "type": "Human, Animal, Plant, Vehicle, Object … : the broad kind of the subject",
    "sub_type": "one or two words in the singular: Woman, Man, Girl, Dog, Cup",
    "appearance": "what it looks like, colours first; of a person each garment with its colour: wearing a yellow hoodie and blue"
    " jeans, with short black hair",
    "action": "what it does in the course of the clip, as a phrase that begins with a verb; empty where it does nothing",
    "expression": "of a person or an animal only: the mood on the face; empty where no face is seen",
    "position": "where in the frame, such as: on the left, in the centre, on the right, in the background",
    "is_main_subject": "true for the one subject that the clip is about",
    "camera_motion": "one sentence about how the camera moves, or that it stays still",
    "environment": "the place as one noun phrase, without the subjects: a bright kitchen with white tiles",
    "lighting": "the light in a few words: soft daylight from the left",
    "shot_type": "by how much of the main subject the frame shows",
    "shot_angle": "the height from which the camera looks",
    "shot_position": "the side from which the camera looks at the main subject",
}
REQUEST = (
    "Describe this clip. Its frames are in the order of time. Say only what can be seen; guess no names, no sounds and nothing "
    "outside the picture. List each person, animal and thing that matters as a subject of its own, the most important first, at "
    "most four. Answer with one JSON object and nothing else, with exactly these fields:\n"
)


def request(schema: dict[str, Any] = SCHEMA) -> str:
    """Return the captioner's question as text, for models that receive no schema."""
    return REQUEST + json.dumps(_example(schema), indent=1, ensure_ascii=False)


def _example(schema: dict[str, Any], name: str = "") -> Any:
    """Return a schema as an example object, with the meaning of each field as its value."""
    if schema["type"] == "object":
        return {key: _example(inner, key) for key, inner in schema["properties"].items()}
    if schema["type"] == "array":
        return [_example(schema["items"], name)]
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}: {FIELD_MEANINGS[name]}"
    return FIELD_MEANINGS.get(name, name)


def captioner(
    ask: Ask, num_frames: int | Callable[[int, float], int] = FRAMES
) -> Callable[[np.ndarray, float, Any], dict[str, Any]]:
    """Return a base captioner (see stages/caption/stage.py) over a vision-language model.

    num_frames: how many frames it sees, or a function of the clip's number of frames and their rate. The captioner raises
    ValueError with the fault if neither of two answers is a caption.
    """

    def caption(frames: np.ndarray, fps: float, hints: Any) -> dict[str, Any]:
        count = num_frames(len(frames), fps) if callable(num_frames) else num_frames
        content = [{"type": "text", "text": request()}, frames_part(frames, fps, count)]
        return ask_with_retry(ask, [{"role": "user", "content": content}], SCHEMA, parse_scene)

    caption.uses_hints = False  # type: ignore[attr-defined]
    return caption


def expert(ask: Ask, fields: Sequence[str], confidence: float, num_frames: int = FRAMES) -> Callable[..., list]:
    """Return a caption expert (see stages/caption/stage.py) for some fields of the schema, of the shot or of each subject.

    Raises ValueError for a field that the schema does not have.
    """
    unknown = set(fields) - {*CHOICES, *TEXTS, *SUBJECT_TEXTS}
    if unknown or not fields:
        known = ", ".join((*CHOICES, *TEXTS, *SUBJECT_TEXTS))
        raise ValueError(f"an expert supports the fields {known}, got {', '.join(sorted(unknown)) or 'none'}")
    of_subject = [name for name in fields if name in SUBJECT_TEXTS]

    def answer(frames: np.ndarray, fps: float, hints: Any, base: dict[str, Any]) -> list[tuple[str, str, float]]:
        schema, question = _expert_question(fields, of_subject, base)
        if not schema["properties"]:
            return []
        content = [{"type": "text", "text": question}, frames_part(frames, fps, num_frames)]
        answers = ask_with_retry(
            ask, [{"role": "user", "content": content}], schema, lambda text: _validate(_json(text), schema)
        )
        values = [(name, answers[name], confidence) for name in fields if name in answers]
        for number, subject in enumerate(answers.get("subjects", [])):
            values += [(f"subjects.{number}.{name}", subject[name], confidence) for name in of_subject]
        return [(field, value.strip(), value_confidence) for field, value, value_confidence in values if value.strip()]

    answer.uses_hints = False  # type: ignore[attr-defined]
    return answer


def _expert_question(
    fields: Sequence[str], of_subject: Sequence[str], base: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Return the schema of the requested fields, and the question; the base's subjects are numbered for reference."""
    subjects = base.get("subjects", [])
    properties = {name: _field(name) for name in fields if name not in SUBJECT_TEXTS}
    question = "Look at this clip and answer with one JSON object and nothing else, with exactly these fields:\n"
    subject_list = ""
    if of_subject and subjects:
        item = _object({name: {"type": "string"} for name in of_subject})
        count = len(subjects)
        properties["subjects"] = {"type": "array", "items": item, "minItems": count, "maxItems": count}
        descriptions = [f"{n + 1}. {_describe_subject(subject)}" for n, subject in enumerate(subjects)]
        subject_list = f"\nsubjects has {count} entries, about these in this order:\n" + "\n".join(descriptions)
    schema = _object(properties)
    return schema, question + json.dumps(_example(schema), indent=1, ensure_ascii=False) + subject_list


def _describe_subject(subject: dict[str, Any]) -> str:
    kind = {**subject, **(subject.get("TYPES") or {})}
    parts = (kind.get("sub_type") or kind.get("type") or "subject", subject.get("appearance"), subject.get("position"))
    return ", ".join(part for part in parts if part)


# -- frames ------------------------------------------------------------------------------------------------------------


def frames_part(frames: np.ndarray, fps: float, count: int = FRAMES) -> dict[str, Any]:
    """Return frames as a message part: at most `count`, evenly spaced from first to last, at their true aspect ratio.

    frames: (t, h, w, 3) uint8 RGB. Each has at most AREA_PX pixels.
    """
    indices = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    height, width = frames.shape[1:3]
    scale = min(1.0, (AREA_PX / (height * width)) ** 0.5)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = [cv2.resize(frames[i], size, interpolation=cv2.INTER_AREA) if scale < 1 else frames[i] for i in indices]
    return {"type": "frames", "frames": np.stack(resized), "seconds": [round(float(i) / fps, 2) for i in indices]}


# -- answers -----------------------------------------------------------------------------------------------------------


def ask_with_retry(
    ask: Ask, messages: list[dict[str, Any]], schema: dict[str, Any] | None, read: Callable[[str], Read]
) -> Read:
    """Return the answer as parsed by `read`. If it was truncated or `read` rejects it, ask once more.

    Raises ValueError with the fault of the second answer.
    """
    completion = ask(messages, schema)
    try:
        return read(_complete_text(completion))
    except ValueError as error:
        fault = str(error)
    retry_message = f"That answer cannot be used: {fault}. Answer again, the whole and nothing else."
    messages = [
        *messages,
        {"role": "assistant", "content": completion.text[:4000]},
        {"role": "user", "content": [{"type": "text", "text": retry_message}]},
    ]
    completion = ask(messages, schema)
    try:
        return read(_complete_text(completion))
    except ValueError as error:
        raise ValueError(
            f"the model gave no usable answer in two attempts: {error}; it begins {completion.text[:60]!r}"
        ) from error


def _complete_text(completion: Completion) -> str:
    if not completion.whole:
        raise ValueError(f"it was cut off after {len(completion.text)} letters, it must be shorter")
    return completion.text


def parse_scene(text: str) -> dict[str, Any]:
    """Parse a caption from a model's answer. Unknown fields are dropped; missing ones are empty.

    Raises ValueError, naming the field, for text that is not JSON or violates the schema.
    """
    data = _json(text)
    if not isinstance(data, dict) or not isinstance(data.get("subjects"), list):
        raise ValueError('it must be a JSON object with a list "subjects"')
    subjects = [_subject(s) if isinstance(s, dict) else s for s in data["subjects"]]
    texts = {name: _choice(data.get(name)) for name in CHOICES} | {name: _text(data.get(name)) for name in TEXTS}
    return _validate({"subjects": subjects, **texts}, SCHEMA)


def _subject(data: dict[str, Any]) -> dict[str, Any]:
    kind = data.get("TYPES", {})
    if isinstance(kind, dict):
        kind = {name: _text(kind.get(name, data.get(name))) for name in ("type", "sub_type")}
        kind["type"] = kind["type"][:1].upper() + kind["type"][1:] if isinstance(kind["type"], str) else kind["type"]
    texts = {name: _text(data.get(name)) for name in SUBJECT_TEXTS}
    return {"TYPES": kind, **texts, "is_main_subject": data.get("is_main_subject", False)}


def _text(value: Any) -> Any:
    """Return a string on one line in one Unicode form; "" for None; anything else unchanged, for the schema to reject."""
    if value is None:
        return ""
    return " ".join(unicodedata.normalize("NFC", value).split()) if isinstance(value, str) else value


def _choice(value: Any) -> Any:
    """Return "Close-up" as spelled in the schema; "other" for nothing."""
    return re.sub(r"[\s-]+", "_", value.strip().lower()) or "other" if isinstance(value, str) else value or "other"


def _json(text: str) -> Any:
    """Return the JSON value in a model's answer, after its reasoning and inside a Markdown fence, if any."""
    text = text.rpartition("</think>")[2].strip()
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text, re.DOTALL)
    try:
        return json.loads(fenced.group(1) if fenced else text, parse_constant=_reject_constant)
    except ValueError as error:  # includes JSONDecodeError
        raise ValueError(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("it is not JSON: it is nested too deep") from error


def _reject_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _validate(data: Any, schema: dict[str, Any]) -> Any:
    import jsonschema

    faults = sorted(jsonschema.Draft202012Validator(schema).iter_errors(data), key=lambda e: list(map(str, e.path)))
    if faults:
        path = ".".join(map(str, faults[0].path)) or "the object"
        raise ValueError(f"{path}: {faults[0].message[:200]}")
    return data
