"""What is written of a refusal is read again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2data.records import Reject, Rule
from stages.retrieve.rejections import failed_rules, reason_of, rejection

INF = float("inf")
NUMBERS = st.one_of(st.floats(-1000, 1000), st.sampled_from([INF, -INF]))
RULES = st.lists(
    st.builds(Rule, st.sampled_from(["similarity", "copy_risk", "gap_s"]), NUMBERS, NUMBERS, NUMBERS), min_size=1
)
NAMES = (
    "likeness",
    "margin",
    "cohesion",
    "overlap_s",
    "repeat_distance",
    "picture_distance",
    "mask_confidence",
    "copy_risk",
)


def failing(*rules):
    """Candidates that fail these rules: one name, or several in a set."""
    return np.array([[name in ({rule} if isinstance(rule, str) else rule) for name in NAMES] for rule in rules])


@given(RULES)
def test_the_rules_are_read_as_they_were_printed_and_those_that_failed_come_first(rules):
    rules.append(Rule("margin", 0.0, 0.1, INF))
    source, read = failed_rules(rejection("a/human/0", "ambiguous identity", "b/human/0", rules))
    assert source == "b/human/0"
    assert [str(rule) for rule in read] == [str(rule) for rule in sorted(rules, key=lambda rule: rule.passed)]


@pytest.mark.parametrize(
    ("failed", "reason", "told"),
    [
        (failing("margin", "copy_risk"), "ambiguous identity", [0, 1]),
        (failing("likeness", {"copy_risk", "margin"}), "only copies", [0, 1]),
        (failing("likeness", "mask_confidence", {"mask_confidence", "margin"}), "doubtful outline", [1]),
        (failing({"mask_confidence", "copy_risk"}, {"mask_confidence"} - {"mask_confidence"}), "unknown", [0, 1]),
    ],
)
def test_the_reason_is_that_of_the_candidates_that_come_nearest(failed, reason, told):
    found, candidates = reason_of(NAMES, failed, "unknown")
    assert (found, candidates.tolist()) == (reason, told)


def test_without_a_candidate_none_is_read():
    assert failed_rules(rejection("a/human/0", "no other clip shows it")) == ("", [])
    assert failed_rules(Reject("a", "too short", "0.2 s: of 1 s")) == ("", [])
