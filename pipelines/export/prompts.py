"""Prompts with references labelled in the style of the target, from the phrase spans of the sample."""

from collections.abc import Sequence
from itertools import groupby

from a2data.dataset.triplet import ReferenceMeta, TripletMeta

STYLES = ("plain", "picture", "h3")


def prompt(text: str, references: Sequence[ReferenceMeta], style: str) -> str:
    """Return the prompt of a sample. references: those that are exported, in order; picture N is the Nth of them.

    style: "plain": unchanged; "picture": "<Picture N>" after each phrase; "h3": the six sections of a MiniMax-H3 prompt.
    """
    if style == "picture":
        return with_picture_labels(text, references)
    return h3_prompt(text, references) if style == "h3" else text


def other_captions(meta: TripletMeta) -> list[str]:
    """Return the other captions of a sample that are text: not the structured one, and none that equals its prompt."""
    texts = {each.text: None for each in meta.captions if each.name != "structured"}
    return [text for text in texts if text != meta.caption.prompt]


def with_picture_labels(text: str, references: Sequence[ReferenceMeta]) -> str:
    """Return the prompt with "<Picture N>" after the phrase of each reference.

    A reference without a phrase is labelled in a sentence at the end, so that every picture has a label.
    """
    numbered = dict(enumerate(references, 1))
    labelled = text
    spans = sorted(((r.end, n) for n, r in numbered.items() if r.phrase), reverse=True)
    for end, group in groupby(spans, key=lambda pair: pair[0]):
        labels = " ".join(f"<Picture {n}>" for n in sorted(n for _, n in group))
        labelled = f"{labelled[:end]} {labels}{labelled[end:]}"
    unnamed = [f"<Picture {n}> shows the {r.role}." for n, r in numbered.items() if not r.phrase]
    return " ".join([labelled, *unnamed])


def h3_prompt(text: str, references: Sequence[ReferenceMeta]) -> str:
    """Return the prompt in the sections that MiniMax-H3 was trained on for reference-to-video.

    Each phrase is a <Subject N>, except that of a place, which is its <Picture N>. Sections: subject_definitions, summary,
    retention_analysis, detailed_description, overall_soundscape, non_diegetic_music (MiniMax-AI/MiniMax-H3,
    skills/h3-prompt-writing). The sample says nothing about sound, so the last two are "N/A".
    """
    numbers = {reference.name: n for n, reference in enumerate(references, 1)}
    spans: dict[tuple[int, int], list[ReferenceMeta]] = {}
    for reference in references:
        if reference.phrase and reference.role != "background":
            spans.setdefault((reference.start, reference.end), []).append(reference)
    labels = {span: f"<Subject {n}>" for n, span in enumerate(sorted(spans), 1)}
    definitions, retained = [], []
    labels_at: dict[int, list[str]] = {}
    for span, label in labels.items():
        pictures = _join_names([f"<Picture {numbers[reference.name]}>" for reference in spans[span]])
        definitions.append(f"{label} is {text[slice(*span)]}, shown in {pictures}.")
        retained.append(f"{label}: fully_preserved - identity and appearance are those of {pictures}.")
        labels_at.setdefault(span[1], []).append(label)
    for reference in references:
        label = f"<Picture {numbers[reference.name]}>"
        if not reference.phrase or reference.role == "background":
            definitions.append(f"{label} shows {reference.phrase or f'the {reference.role}'}.")
            retained.append(f"{label}: fully_preserved - as shown.")
        if reference.phrase and reference.role == "background":
            labels_at.setdefault(reference.end, []).append(label)
    labelled = text
    for end in sorted(labels_at, reverse=True):
        labelled = f"{labelled[:end]} {' '.join(labels_at[end])}{labelled[end:]}"
    return (
        f"subject_definitions:\n{chr(10).join(definitions)}\n\nsummary:\n[reference generation] {labelled}\n\n"
        f"retention_analysis:\n{chr(10).join(retained)}\n\ndetailed_description:\n[Shot 1] {labelled}\n\n"
        "overall_soundscape: N/A\n\nnon_diegetic_music: N/A"
    )


def _join_names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
