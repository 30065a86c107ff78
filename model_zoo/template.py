"""Fusion without a language model: a structured caption put into plain English, in SkyReels-V2's order.

Shot, subjects with what they do, environment, lighting. A phrase never begins a sentence, so that it stands in the prompt
letter by letter as it was given.
"""

from collections.abc import Callable
from typing import Any

SHOT_TYPES = {
    "long_shot": "a long shot",
    "full_shot": "a full shot",
    "medium_shot": "a medium shot",
    "close_up": "a close-up",
    "extreme_close_up": "an extreme close-up",
}
ANGLES = {"eye_level": "at eye level", "high_angle": "from a high angle", "low_angle": "from a low angle"}
VIEWS = {
    "front_view": "seen from the front",
    "back_view": "seen from behind",
    "side_view": "seen from the side",
    "over_the_shoulder": "seen over the shoulder",
    "overhead_view": "seen from overhead",
    "point_of_view": "seen through the eyes of somebody",
    "aerial_view": "seen from the air",
    "overlooking_view": "seen from above",
}


def template(card: Any, device: str) -> Callable[[dict[str, Any]], str]:
    """`model(scene) -> prompt`, see stages/caption.py for what a fusion is given."""
    return fuse


def fuse(scene: dict[str, Any]) -> str:
    """The prompt of a scene, without the camera. Never empty: a scene about which nothing is known says so."""
    shot = framing(scene)
    subjects = scene["subjects"]
    place = scene["environment_phrase"]
    if subjects:
        sentences = [opening(shot, subjects[0]), *(following(s) for s in subjects[1:])]
        sentences += [setting(place)] if place else []
    elif place and is_noun_phrase(place):
        sentences = [f"{capital(shot or 'a view')} of {place} in which nothing stands out"]
    else:
        sentences = [f"{capital(shot or 'a view')} without a clear subject", *([place] if place else [])]
    if scene["lighting"]:
        sentences.append(f"The lighting is {small(scene['lighting'])}")
    return " ".join(sentence.rstrip(". ") + "." for sentence in sentences)


def framing(scene: dict[str, Any]) -> str:
    """ "a medium shot at eye level, seen from the front"; "" where nothing of it is known."""
    shot, angle = SHOT_TYPES.get(scene["shot_type"], ""), ANGLES.get(scene["shot_angle"], "")
    view = VIEWS.get(scene["shot_position"], "") if scene["subjects"] else ""
    if not (shot or angle or view):
        return ""
    taken = " ".join(part for part in (shot or "a shot", angle) if part)
    return f"{taken}, {view}" if view else taken


def opening(shot: str, subject: dict[str, Any]) -> str:
    """The first sentence: the shot and its main subject."""
    return f"In {shot or 'this scene'}, {clause(subject, say_where=True)}"


def following(subject: dict[str, Any]) -> str:
    """A sentence for one more subject, which begins with its place."""
    where = _where(subject)
    if where and _brief(where):
        return f"{capital(where)}, {clause(subject, say_where=False)}"
    return f"Meanwhile, {clause(subject, say_where=True)}"


def clause(subject: dict[str, Any], say_where: bool) -> str:
    """ "a person in a yellow top gestures in the centre"."""
    phrase, action, where = subject["phrase"], small(subject["action"]).rstrip(". "), _where(subject)
    said = f"{phrase} {_verb(action)}" if action else f"there is {phrase}"
    if say_where and where:
        said += f" {where}" if _brief(where) else f", {where}"
    mood = small(subject["expression"]).rstrip(". ")
    return f"{said}, with {mood if 'expression' in mood else f'a {mood} expression'}" if mood else said


def _where(subject: dict[str, Any]) -> str:
    """The subject's position, "" where its phrase has said it already."""
    where = small(subject["position"]).rstrip(". ")
    return "" if where and where in subject["phrase"] else where


def _brief(words: str) -> bool:
    return len(words.split()) <= 4


def _verb(action: str) -> str:
    """A participle gets its "is": "sitting on a chair" -> "is sitting on a chair"."""
    return f"is {action}" if action.split()[0].rstrip(",").endswith("ing") else action


def setting(place: str) -> str:
    """The sentence for the environment; one that is a sentence already stays as it is."""
    if not is_noun_phrase(place):
        return place
    return f"The scene is set {'against' if place.endswith(('background', 'wall', 'backdrop')) else 'in'} {place}"


def is_noun_phrase(words: str) -> bool:
    """Whether it begins with a small article, as a phrase from inside a sentence does."""
    return words.startswith(("a ", "an ", "the "))


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def small(words: str) -> str:
    """The first letter small, unless the word is an acronym or "I"."""
    return words if words[:2].isupper() or words.startswith("I ") else words[:1].lower() + words[1:]
