"""The flags of captions in the report."""

from a2data.records import Caption, Match
from a2data.store.tables import Store
from pipelines.report.captions import flag_captions


def caption(clip_id: str, prompt: str) -> Caption:
    return Caption(clip_id, prompt, [], "", "", "", "", "", 0, 0, "", [])


def test_captions_are_counted_by_flag_over_all_shards(tmp_path):
    store = Store(tmp_path)
    store.write("caption", 0, Caption, [caption("a-00000000", "A dog runs over the grass.")])
    store.write(
        "caption", 1, Caption, [caption("b-00000000", "A dog runs over the grass."), caption("c-00000000", "A cup.")]
    )
    store.write("match", 0, Match, [Match("a-00000000", "a-00000000/object/0", "A dog", 0, 5, 1.0, 1.0)])
    store.write("match", 1, Match, [Match("c-00000000", "c-00000000/object/0", "A cup", 0, 5, 1.0, 1.0)])
    found = {flag.name: (flag.captions, flag.examples[0].clip_id) for flag in flag_captions(store)}
    assert found == {
        "repeated": (1, "b-00000000"),
        "too short": (1, "c-00000000"),
        "names nothing": (1, "b-00000000"),
    }


def test_captions_are_not_accused_of_naming_nothing_before_match_has_run(tmp_path):
    store = Store(tmp_path)
    store.write("caption", 0, Caption, [caption("a-00000000", "A dog runs over the grass.")])
    assert flag_captions(store) == []


def test_a_corpus_without_captions_has_no_flags(tmp_path):
    assert flag_captions(Store(tmp_path)) == []
