"""Reasons why an element has no reference: written by the stage `retrieve`, read by the report."""

import re
from collections.abc import Sequence

import numpy as np

from a2data.records import Reject, Rule

RULE = re.compile(r"(\w+) = (\S+), allowed (\S+) to (\S+): (?:FAIL|pass)")  # format of a printed Rule
COPY_RULES = ("likeness", "overlap_s", "repeat_distance", "picture_distance", "copy_risk")


def reason_of(rules: Sequence[str], failed: np.ndarray, default: str) -> tuple[str, np.ndarray]:
    """Return why an element has no reference, and the indices of the candidates that show it best.

    rules: names; failed: (n, rules) bool, the rules that each candidate fails; default: the reason if no rule tells more.
    """
    column = {name: failed[:, n] for n, name in enumerate(rules)}
    only_mask_fails = column["mask_confidence"] & (failed.sum(1) == 1)
    if only_mask_fails.any():
        return "doubtful outline", np.flatnonzero(only_mask_fails)
    if np.any([column[name] for name in COPY_RULES], axis=0).all():
        default = "only copies"
    elif (column["margin"] | column["cohesion"]).any():
        default = "ambiguous identity"
    return default, np.arange(len(failed))


def rejection(element_id: str, reason: str, source: str = "", rules: Sequence[Rule] = ()) -> Reject:
    """Return the rejection of an element; source: its likeliest candidate, with its rules, failed ones first."""
    rules_text = "; ".join(map(str, sorted(rules, key=lambda rule: rule.passed)))
    return Reject(element_id, reason, f"{source}: {rules_text}" if source else "")


def failed_rules(reject: Reject) -> tuple[str, list[Rule]]:
    """Return the candidate that `rejection` names and the rules about it, failed ones first; "" and [] if there is none."""
    source, _, rules_text = reject.detail.partition(": ")
    rules = [Rule(match[1], *map(float, match.groups()[1:])) for match in RULE.finditer(rules_text)]
    return (source, rules) if rules else ("", [])
