"""Assignment of corpus components to training and held-out splits by their hash. Pure functions."""

import hashlib


def shares_of(text: str) -> dict[str, float]:
    """Parse "eval=0.05,test=0.05" into fractions by name, in that order. Raises ValueError for malformed text."""
    shares: dict[str, float] = {}
    for part in text.split(",") if text else ():
        name, _, number = part.strip().partition("=")
        try:
            share = float(number)
        except ValueError:
            share = 0.0
        if (
            not (name.isascii() and name.isalpha() and name.islower())
            or name in (*shares, "train")
            or not 0 < share < 1
        ):
            raise ValueError(f"pack.split {text!r}: write a lower-case name and a fraction, such as eval=0.05")
        shares[name] = share
    if sum(shares.values()) >= 1:
        raise ValueError(f"pack.split {text!r} leaves nothing to train on: its fractions must sum to less than 1")
    return shares


def assigned(component: str, shares: dict[str, float]) -> str:
    """Return the split of a component by its hash alone: "" without splits, "train" for the rest.

    A component therefore keeps its split when others are added; the fractions hold only on average.
    """
    if not shares:
        return ""
    place = int(hashlib.sha256(component.encode()).hexdigest()[:13], 16) / 16**13
    for name, share in shares.items():
        if place < share:
            return name
        place -= share
    return "train"
