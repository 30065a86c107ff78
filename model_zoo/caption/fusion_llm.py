"""Fusion by a language model: a structured caption written as a prompt that contains every phrase verbatim.

The order is that of SkyReels-V2's text-to-video prompts (skycaptioner_v1/scripts/vllm_fusion_caption.py): shot, subjects with
their action, appearance, expression and position, environment, lighting. Unlike there, nothing is dropped at random, so that a
rerun sends the same request. The model is not given the camera motion, which is appended afterwards.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from model_zoo.caption.schema import Ask, ask_with_retry

MAX_WORDS = 250  # the text encoder of the video model has 512 tokens, camera included
SHOT = ("shot_type", "shot_angle", "shot_position")
SUBJECT_FIELDS = ("action", "appearance", "expression", "position")
REQUEST = (
    "Write one paragraph of plain English prose that describes a video clip, from the facts below. First say how it is shot, "
    "then each subject with its action, appearance, expression and position, then the environment, then the lighting. Say no "
    "more than the facts do, and nothing about how the camera moves. Skip what is empty.\n"
    'Each "phrase" must stand in the paragraph exactly once, letter by letter, never at the beginning of a sentence (so that it '
    "keeps its small first letter); where you speak of the same subject or place again, say it, she, he, they or the place. Do "
    "not repeat in other words what a phrase says already. Begin the paragraph with the shot, such as: In a medium shot, …\n"
    "Answer with the paragraph only.\n"
)


def fusion(ask: Ask) -> Callable[[dict[str, Any]], str]:
    """Return `model(scene) -> prompt` (see stages/caption/stage.py).

    It raises ValueError, naming the phrase, if neither of two prompts has each phrase exactly once.
    """

    def fuse(scene: dict[str, Any]) -> str:
        required_phrases = phrases(scene)
        text = REQUEST + json.dumps(facts(scene), indent=1, ensure_ascii=False)
        return ask_with_retry(
            ask, [{"role": "user", "content": [{"type": "text", "text": text}]}], None, prompt_parser(required_phrases)
        )

    return fuse


def phrases(scene: dict[str, Any]) -> list[str]:
    """Return the phrases that the prompt must contain: those of the subjects and of the environment."""
    return [p for p in (*(s["phrase"] for s in scene["subjects"]), scene["environment_phrase"]) if p]


def facts(scene: dict[str, Any]) -> dict[str, Any]:
    """Return a scene as given to the model: without empty fields, internal fields and camera motion."""
    fields: dict[str, Any] = {name: scene[name].replace("_", " ") for name in SHOT if scene[name] not in ("", "other")}
    fields["subjects"] = [
        {"phrase": s["phrase"], **{name: s[name] for name in SUBJECT_FIELDS if s[name]}} for s in scene["subjects"]
    ]
    if scene["environment_phrase"]:
        fields["environment"] = {"phrase": scene["environment_phrase"]}
    if scene["lighting"]:
        fields["lighting"] = scene["lighting"]
    return fields


def prompt_parser(required_phrases: list[str]) -> Callable[[str], str]:
    """Return `read(text) -> prompt`, which raises ValueError unless each phrase occurs exactly once."""

    def read(text: str) -> str:
        prompt = " ".join(text.rpartition("</think>")[2].split())
        if len(prompt) > 1 and prompt[0] == prompt[-1] == '"':
            prompt = prompt[1:-1].strip()
        if not prompt.strip(" -."):
            raise ValueError("the paragraph is empty")
        if len(prompt.split()) > MAX_WORDS:
            raise ValueError(f"the paragraph has {len(prompt.split())} words, more than {MAX_WORDS}")
        errors = []
        for phrase in required_phrases:
            count = len(re.findall(rf"(?<!\w){re.escape(phrase)}(?!\w)", prompt))
            if count != 1:
                errors.append(f"the phrase {phrase!r} stands in it {count} times, not once")
        if errors:
            raise ValueError("; ".join(errors))
        return prompt if prompt.endswith((".", "!", "?")) else f"{prompt}."

    return read
