"""SkyCaptioner-V1 as it was trained: its own request after the video, 16 frames of 360 x 420, and its own names for people.

Chen et al. 2025 (arXiv 2504.13074). Request, frames and sampling are those of skycaptioner_v1/scripts/vllm_struct_caption.py in
SkyworkAI/SkyReels-V2: the network was fine-tuned on this one request, and answers another one worse.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from model_zoo.caption.schema import CHOICES, SCHEMA, Ask, ask_with_retry, parse_scene

FRAMES = 16
SIZE_PX = (360, 420)  # width, height: frames are squeezed to it
FPS = 2.0  # at which the network was told that the frames follow one another, whatever the clip's duration


def _subject(ordinal: str, position: str, types: tuple[str, str], is_main: bool) -> dict[str, Any]:
    category, sub_category = types
    # two spaces after the main subject's "expression", as in the request of the training
    space = "  " if is_main else " "
    return {
        "appearance": f"{ordinal} subject appearance description",
        "action": f"{ordinal} subject action",
        "expression": f"{ordinal} subject expression{space}(Only for human/animal categories, empty otherwise)",
        "position": position,
        "TYPES": {"type": f"Main category (e.g., {category})", "sub_type": f"Sub-category (e.g., {sub_category})"},
        "is_main_subject": is_main,
    }


def _options(field: str) -> str:
    return "/".join((*CHOICES[field], "other"))


FORM = {
    "subjects": [
        _subject(
            "Main",
            "Subject position in the video (Can be relative position to other objects or spatial description)",
            ("Human", "Man"),
            True,
        ),
        _subject("Non-main", "Position of non-main subject 1", ("Vehicles", "Ship"), False),
    ],
    "shot_type": f"Shot type(Options: {_options('shot_type')})",
    "shot_angle": f"Camera angle(Options: {_options('shot_angle')})",
    "shot_position": f"Camera position(Options: {_options('shot_position')})",
    "camera_motion": "Camera movement description",
    "environment": "Video background/environment description",
    "lighting": "Lighting information in the video",
}
REQUEST = (
    "I need you to generate a structured and detailed caption for the provided video. The structured output and the requirements "
    f"for each field are as shown in the following JSON content: {json.dumps(FORM)}"
)

# Athletes have the type "Sport" and the name of the sport as sub_type, and so have their cones and goals.
CLOTHING = re.compile(r"\b(?:wear(?:s|ing)?|dressed|clad)\b", re.IGNORECASE)
PEOPLE = "man|woman|boy|girl|child|player"
ATHLETES = (
    "person|athlete|skier|snowboarder|skater|skateboarder|surfer|swimmer|diver|runner|jumper|climber|dancer|gymnast|cyclist|rider|"
    "boxer|wrestler|fighter|golfer|rower|footballer|goalkeeper"
)
PERSON_ACTION = re.compile(rf"(?:^|[.;] )(?:the |an? |one )?(?:\w+ ){{0,2}}(?:{PEOPLE}|{ATHLETES})\b", re.IGNORECASE)


def captioner(ask: Ask) -> Callable[[np.ndarray, float, Any], dict[str, Any]]:
    """Return the base captioner (see stages/caption/stage.py); it raises ValueError if neither of two answers is a caption."""

    def caption(frames: np.ndarray, fps: float, hints: Any) -> dict[str, Any]:
        content = [frames_part(frames), {"type": "text", "text": REQUEST}]
        return ask_with_retry(ask, [{"role": "user", "content": content}], SCHEMA, read)

    caption.uses_hints = False  # type: ignore[attr-defined]
    return caption


def frames_part(frames: np.ndarray) -> dict[str, Any]:
    """Return (t, h, w, 3) uint8 RGB frames as a message part: 16 of 420 x 360, without the end of the clip as in the training."""
    indices = np.rint(np.arange(FRAMES) * (len(frames) - 1) / FRAMES).astype(int)
    resized = [np.asarray(Image.fromarray(frames[i]).resize(SIZE_PX, Image.Resampling.BICUBIC)) for i in indices]
    return {"type": "frames", "frames": np.stack(resized), "seconds": [n / FPS for n in range(FRAMES)]}


def read(text: str) -> dict[str, Any]:
    """Parse an answer like `schema.parse_scene`; athletes become people and the rest of their sport objects."""
    scene = parse_scene(text)
    for subject in scene["subjects"]:
        if subject["TYPES"]["type"] == "Sport":
            subject["TYPES"] = _sport_types(subject)
    return scene


def _sport_types(subject: dict[str, Any]) -> dict[str, str]:
    if not (CLOTHING.search(subject["appearance"]) or PERSON_ACTION.search(subject["action"])):
        name = subject["TYPES"]["sub_type"]
        return {"type": "Object", "sub_type": "" if name == "Other" else name}
    people = re.findall(rf"\b(?:{PEOPLE})\b", subject["action"].lower())
    return {"type": "Human", "sub_type": people[0].capitalize() if people else "Person"}
