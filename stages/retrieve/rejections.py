"""Reasons why an element has no reference: written by the stage `retrieve`, read by the report."""

import re

from a2data.records import ElementMeta, Reference, Reject, Rule

RULE = re.compile(r"(\w+) = (\S+), allowed (\S+) to (\S+): (?:FAIL|pass)")  # format of a printed Rule
COPY_RULES = {"likeness", "overlap_s", "repeat_distance", "picture_distance", "copy_risk"}


def reject_target(
    target: ElementMeta, judged: list[Reference], reason: str, near: tuple[str, Rule] | None = None
) -> Reject:
    """Return the rejection of an element: `reason` if it had no candidates, else the rules that the best candidate failed.

    near: the nearest element that did not qualify, and its similarity.
    """
    if not judged:
        return Reject(target.element_id, reason, f"{near[0]}: {near[1]}" if near else "")
    failed = [(r, {rule.name: rule for rule in r.rules if not rule.passed}) for r in judged]
    if alone := [(r, rules) for r, rules in failed if rules.keys() == {"mask_confidence"}]:
        reason, failed = "doubtful outline", alone
    elif all(COPY_RULES & rules.keys() for _, rules in failed):
        reason = "only copies"
    elif any({"margin", "cohesion"} & rules.keys() for _, rules in failed):
        reason = "ambiguous identity"
    likeliest, _ = max(failed, key=lambda x: (x[0].similarity, x[0].source_element_id))
    rules = sorted(likeliest.rules, key=lambda rule: rule.passed)
    return Reject(target.element_id, reason, f"{likeliest.source_element_id}: {'; '.join(map(str, rules))}")


def failed_rules(reject: Reject) -> tuple[str, list[Rule]]:
    """Return the candidate that `reject_target` names and the rules about it, failed ones first; "" and [] if there is none."""
    source, _, told = reject.detail.partition(": ")
    rules = [Rule(match[1], *map(float, match.groups()[1:])) for match in RULE.finditer(told)]
    return (source, rules) if rules else ("", [])
