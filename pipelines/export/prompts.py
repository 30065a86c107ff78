"""Prompts in which references are named in the way of the target, from the phrase spans of the sample."""

from collections.abc import Sequence
from itertools import groupby

from a2data.dataset.triplet import ReferenceMeta, TripletMeta

STYLES = ("plain", "picture", "h3")


def prompt(text: str, references: Sequence[ReferenceMeta], style: str) -> str:
    """Return the prompt of a sample. references: those that are exported, in order; picture N is the Nth of them.

    style: "plain": unchanged; "picture": "<Picture N>" after each phrase; "h3": the six sections of a MiniMax-H3 prompt.
    """
    if style == "picture":
        return labelled(text, references)
    return structured(text, references) if style == "h3" else text


def others(facts: TripletMeta) -> list[str]:
    """Return the other captions of a sample that are text: not the structured one, and none that equals its prompt."""
    texts = {each.text: None for each in facts.captions if each.name != "structured"}
    return [text for text in texts if text != facts.caption.prompt]


def labelled(text: str, references: Sequence[ReferenceMeta]) -> str:
    """Return the prompt with "<Picture N>" after the phrase of each reference.

    A reference without a phrase is named in a sentence at the end, so that no picture is without a name.
    """
    named = dict(enumerate(references, 1))
    out = text
    spans = sorted(((r.end, n) for n, r in named.items() if r.phrase), reverse=True)
    for end, group in groupby(spans, key=lambda pair: pair[0]):
        labels = " ".join(f"<Picture {n}>" for n in sorted(n for _, n in group))
        out = f"{out[:end]} {labels}{out[end:]}"
    rest = [f"<Picture {n}> shows the {r.role}." for n, r in named.items() if not r.phrase]
    return " ".join([out, *rest])


def structured(text: str, references: Sequence[ReferenceMeta]) -> str:
    """Return the prompt in the sections that MiniMax-H3 was trained on for reference-to-video.

    Each phrase is a <Subject N>, except that of a place, which is its <Picture N>. Sections: subject_definitions, summary,
    retention_analysis, detailed_description, overall_soundscape, non_diegetic_music (MiniMax-AI/MiniMax-H3,
    skills/h3-prompt-writing). The sample says nothing about sound, so the last two are "N/A".
    """
    numbers = {given.name: n for n, given in enumerate(references, 1)}
    spans: dict[tuple[int, int], list[ReferenceMeta]] = {}
    for given in references:
        if given.phrase and given.role != "background":
            spans.setdefault((given.start, given.end), []).append(given)
    labels = {span: f"<Subject {n}>" for n, span in enumerate(sorted(spans), 1)}
    defined, kept = [], []
    insert: dict[int, list[str]] = {}
    for span, label in labels.items():
        pictures = _listed([f"<Picture {numbers[given.name]}>" for given in spans[span]])
        defined.append(f"{label} is {text[slice(*span)]}, shown in {pictures}.")
        kept.append(f"{label}: fully_preserved - identity and appearance are those of {pictures}.")
        insert.setdefault(span[1], []).append(label)
    for given in references:
        label = f"<Picture {numbers[given.name]}>"
        if not given.phrase or given.role == "background":
            defined.append(f"{label} shows {given.phrase or f'the {given.role}'}.")
            kept.append(f"{label}: fully_preserved - as shown.")
        if given.phrase and given.role == "background":
            insert.setdefault(given.end, []).append(label)
    told = text
    for end in sorted(insert, reverse=True):
        told = f"{told[:end]} {' '.join(insert[end])}{told[end:]}"
    return (
        f"subject_definitions:\n{chr(10).join(defined)}\n\nsummary:\n[reference generation] {told}\n\n"
        f"retention_analysis:\n{chr(10).join(kept)}\n\ndetailed_description:\n[Shot 1] {told}\n\n"
        "overall_soundscape: N/A\n\nnon_diegetic_music: N/A"
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
