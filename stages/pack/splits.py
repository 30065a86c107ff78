"""Which component of a corpus is trained on and which is held out: by its hash, whole. Pure functions."""

import hashlib


def shares_of(text: str) -> dict[str, float]:
    """ "eval=0.05,test=0.05" as shares by name, in that order. Raises ValueError for text that is none."""
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
            raise ValueError(f"pack.split {text!r}: write a name in small letters and a share, such as eval=0.05")
        shares[name] = share
    if sum(shares.values()) >= 1:
        raise ValueError(f"pack.split {text!r} leaves nothing to train on: its shares must be less than 1 together")
    return shares


def assigned(component: str, shares: dict[str, float]) -> str:
    """The split of a component, by its hash alone: "" where there are no shares, "train" for what none of them takes.

    So a component stays where it is when others come; shares are right on average only.
    """
    if not shares:
        return ""
    place = int(hashlib.sha256(component.encode()).hexdigest()[:13], 16) / 16**13
    for name, share in shares.items():
        if place < share:
            return name
        place -= share
    return "train"
