"""The captions of a sample that go into an export beside its prompt."""

from types import SimpleNamespace

from a2data.dataset.triplet import NamedCaption
from pipelines.export.prompts import other_captions


def test_other_captions_are_text_and_not_the_prompt_again():
    given = [NamedCaption("long", "a man walks"), NamedCaption("short", "a man"), NamedCaption("structured", "{}")]
    facts = SimpleNamespace(captions=given, caption=SimpleNamespace(prompt="a man walks"))
    assert other_captions(facts) == ["a man"]
    assert other_captions(SimpleNamespace(captions=[], caption=facts.caption)) == []
