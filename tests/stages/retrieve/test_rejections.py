"""What is written of a refusal is read again."""

from hypothesis import given
from hypothesis import strategies as st

from a2data.records import ElementMeta, Reference, Reject, Rule
from stages.retrieve.rejections import failed_rules, reject_target

INF = float("inf")
NUMBERS = st.one_of(st.floats(-1000, 1000), st.sampled_from([INF, -INF]))
RULES = st.lists(
    st.builds(Rule, st.sampled_from(["similarity", "copy_risk", "gap_s"]), NUMBERS, NUMBERS, NUMBERS), min_size=1
)
TARGET = ElementMeta("a", "a/human/0", "human", "person", "", 0, "", "", 0.5, [], [])


def judged(source: str, similarity: float, rules: list[Rule]) -> Reference:
    return Reference("a", "a/human/0", "human", 0, 0, "b", source, "", similarity, 0.0, rules)


@given(RULES)
def test_the_rules_are_read_as_they_were_printed_and_those_that_failed_come_first(rules):
    rules.append(Rule("margin", 0.0, 0.1, INF))
    source, read = failed_rules(reject_target(TARGET, [judged("b/human/0", 0.9, rules)], ""))
    assert source == "b/human/0"
    assert [str(rule) for rule in read] == [str(rule) for rule in sorted(rules, key=lambda rule: rule.passed)]


def test_of_several_the_likeliest_is_named():
    failed = [Rule("margin", 0.0, 0.1, INF)]
    reject = reject_target(TARGET, [judged("b/human/0", 0.8, failed), judged("c/human/0", 0.9, failed)], "")
    assert (failed_rules(reject)[0], reject.reason) == ("c/human/0", "ambiguous identity")


def test_without_a_candidate_none_is_read():
    assert failed_rules(reject_target(TARGET, [], "no other clip shows it")) == ("", [])
    assert failed_rules(Reject("a", "too short", "0.2 s: of 1 s")) == ("", [])
