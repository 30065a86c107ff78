"""Assignment of corpus components to training and held-out splits by their hash. Pure functions."""

import hashlib


def parse_fractions(text: str) -> dict[str, float]:
    """Parse "eval=0.05,test=0.05" into fractions by name, in that order. Raises ValueError for malformed text."""
    fractions: dict[str, float] = {}
    for part in text.split(",") if text else ():
        name, _, number = part.strip().partition("=")
        try:
            fraction = float(number)
        except ValueError:
            fraction = 0.0
        if (
            not (name.isascii() and name.isalpha() and name.islower())
            or name in (*fractions, "train")
            or not 0 < fraction < 1
        ):
            raise ValueError(f"pack.split {text!r}: write a lower-case name and a fraction, such as eval=0.05")
        fractions[name] = fraction
    if sum(fractions.values()) >= 1:
        raise ValueError(f"pack.split {text!r} leaves nothing to train on: its fractions must sum to less than 1")
    return fractions


def split_of(component: str, fractions: dict[str, float]) -> str:
    """Return the split of a component by its hash alone: "" without splits, "train" for the rest.

    A component therefore keeps its split when others are added; the fractions hold only on average.
    """
    if not fractions:
        return ""
    position = int(hashlib.sha256(component.encode()).hexdigest()[:13], 16) / 16**13
    for name, fraction in fractions.items():
        if position < fraction:
            return name
        position -= fraction
    return "train"
