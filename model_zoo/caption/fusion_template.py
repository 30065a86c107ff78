"""Fusion without a language model: a structured caption in plain English, in SkyReels-V2's order.

Shot, subjects with their actions, environment, lighting. A phrase never begins a sentence, so that the prompt contains it
verbatim.
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
    "point_of_view": "from a first-person point of view",
    "aerial_view": "seen from the air",
    "overlooking_view": "seen from above",
}


def template(card: Any, device: str) -> Callable[[dict[str, Any]], str]:
    """Sentences from templates. `model(scene) -> prompt`, see stages/caption/stage.py for the input of a fusion."""
    return fuse


def fuse(scene: dict[str, Any]) -> str:
    """Return the prompt of a scene, without the camera. Never empty: a scene without information is described as such."""
    subjects, place = scene["subjects"], scene["environment_phrase"]
    if subjects:
        sentences = [first_sentence(scene, subjects[0])]
        sentences += other_sentences(subjects[1:], after_there_is=not subjects[0]["action"])
        sentences += [environment_sentence(place)] if place else []
    else:
        sentences = sentences_without_subjects(scene, place)
    if scene["lighting"]:
        sentences.append(f"The lighting is {lower_first(scene['lighting'])}")
    return " ".join(sentence.rstrip(". ") + "." for sentence in sentences)


def first_sentence(scene: dict[str, Any], subject: dict[str, Any]) -> str:
    """Return the first sentence: the framing of the shot, and its main subject."""
    return f"{upper_first(framing(scene)) or 'In this scene'}, {clause(subject, with_position=True)}"


def framing(scene: dict[str, Any]) -> str:
    """Return "in a medium shot at eye level, seen from the front"; "" if nothing is known."""
    shot = SHOT_TYPES.get(scene["shot_type"], "")
    shot_and_angle = " ".join(part for part in (shot and f"in {shot}", ANGLES.get(scene["shot_angle"], "")) if part)
    return ", ".join(part for part in (shot_and_angle, VIEWS.get(scene["shot_position"], "")) if part)


def sentences_without_subjects(scene: dict[str, Any], place: str) -> list[str]:
    """Return the sentences for a scene without subjects."""
    shot = upper_first(SHOT_TYPES.get(scene["shot_type"], "a view"))
    angle = ANGLES.get(scene["shot_angle"], "")
    view = f"{shot} {angle}" if angle else shot
    if is_noun_phrase(place):
        return [f"{view} of {place} {'against' if is_backdrop(place) else 'in'} which nothing stands out"]
    return [f"{view} in which nothing stands out", *([place] if place else [])]


def other_sentences(subjects: list[dict[str, Any]], after_there_is: bool) -> list[str]:
    """Return the sentences for the other subjects: first those that are only present, then those that act.

    after_there_is: whether the previous sentence already used "there is".
    """
    idle, busy = ([s for s in subjects if bool(s["action"]) is has_action] for has_action in (False, True))
    sentences = []
    if idle:
        sentences.append(
            f"There is {'also ' if after_there_is else ''}{join_list([_phrase_with_position(s) for s in idle])}"
        )
    if busy:
        sentences.append(f"Meanwhile, {join_list([clause(s, with_position=True) for s in busy])}")
    return sentences


def _phrase_with_position(subject: dict[str, Any]) -> str:
    """Return "a red cup on the right"; with a comma before a position of several words."""
    position = _position(subject)
    return f"{subject['phrase']}{' ' if _is_short(position) else ', '}{position}" if position else subject["phrase"]


def join_list(words: list[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def clause(subject: dict[str, Any], with_position: bool) -> str:
    """Return "a person in a yellow top gestures in the centre"."""
    phrase, action, position = subject["phrase"], lower_first(subject["action"]).rstrip(". "), _position(subject)
    text = f"{phrase} {_verb(action)}" if action else f"there is {phrase}"
    if with_position and position:
        text += f" {position}" if _is_short(position) else f", {position}"
    mood = lower_first(subject["expression"]).rstrip(". ")
    if mood and "expression" not in mood:
        mood = f"{'an' if mood[0] in 'aeiou' else 'a'} {mood} expression"
    return f"{text}, with {mood}" if mood else text


def _position(subject: dict[str, Any]) -> str:
    """Return the subject's position, "" if its phrase contains it."""
    position = lower_first(subject["position"]).rstrip(". ")
    return "" if position and position in subject["phrase"] else position


def _is_short(words: str) -> bool:
    return len(words.split()) <= 4


def _verb(action: str) -> str:
    """Add "is" to a participle: "sitting on a chair" -> "is sitting on a chair"."""
    return f"is {action}" if action.split()[0].rstrip(",").endswith("ing") else action


def environment_sentence(place: str) -> str:
    """Return the sentence for the environment; one that is already a sentence is unchanged."""
    if not is_noun_phrase(place):
        return place
    return f"The scene is set {'against' if is_backdrop(place) else 'in'} {place}"


def is_backdrop(place: str) -> bool:
    """Return whether subjects are in front of the environment, not in it."""
    return place.endswith(("background", "wall", "backdrop"))


def is_noun_phrase(words: str) -> bool:
    """Return whether the text begins with a lower-case article, like a phrase from inside a sentence."""
    return words.startswith(("a ", "an "))


def upper_first(words: str) -> str:
    return words[:1].upper() + words[1:]


def lower_first(words: str) -> str:
    """Return the text with a lower-case first letter, unless the word is an acronym or "I"."""
    return words if words[:2].isupper() or words.startswith("I ") else words[:1].lower() + words[1:]
