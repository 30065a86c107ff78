import json
from dataclasses import asdict

import pytest
import tiny_corpus
from tiny_corpus import GREEN, GREY, PROMPT, RED, A, B, C

from a2data.records import Kept, Rule, Score, Sound, Source, Span, Speaker
from a2data.store.tables import Store
from pipelines.corpus.explain import explain, history
from pipelines.triplets import triplets
from stages.select import Select

SELECT = Select(
    min_motion=0.01, max_static=float("inf"), min_sharpness=float("-inf"), min_luma=float("-inf"), max_luma=float("inf"),
    max_luma_range=float("inf"), max_bars=float("inf"), max_text=float("inf"),
    max_burnt_text=float("inf"), max_logo=float("inf"),
)  # fmt: skip
STAGES = [SELECT if stage.name() == "select" else stage for stage in triplets()]


@pytest.fixture(scope="module")
def corpus_store(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("explain") / "work")
    tiny_corpus.write(store)
    return store


def under(text: str, heading: str) -> list[str]:
    """The lines under one heading."""
    lines = iter(text.splitlines())
    found = [next(line for line in lines if line.startswith(heading))]
    for line in lines:
        if not line.startswith("  "):
            break
        found.append(line)
    return [line[12:] for line in found]


def test_a_clip_is_followed_from_its_file_to_its_tar(corpus_store):
    text = explain(corpus_store, RED, STAGES)
    assert text.startswith(f"clip {RED}\n")
    assert under(text, "source")[0] == f"/films/{tiny_corpus.HOSTILE}.mp4"
    assert under(text, "shot") == ["0, source frames 0 to 12, begins at the start"]
    assert under(text, "clip  ") == ["1.000 to 1.333 s, 64 x 48, 6 frames at 15 fps"]
    assert under(text, "scores") == [str(Rule("motion", 0.1, 0.01, SELECT.max_motion))]
    assert under(text, "verdict")[0] == "kept"
    assert len(under(text, "elements")) == 3
    assert under(text, "prompt") == [PROMPT]
    assert under(text, "phrases")[1] == f"'red coat' (11 to 19) is {RED}/upper/0: similarity 0.300, margin 0.050"
    assert under(text, "references")[:3] == [
        f"{RED}/human/0 is shown by {GREEN}/human/0 of shard 1",
        "  identity 5, similarity 0.900, copy risk 0.200",
        "  similarity = 0.9, allowed 0.6 to 1: pass",
    ]
    assert under(text, "packed") == ["train-00000.tar at byte 512, 9000 bytes: json, mp4"]
    assert [line.split(": ")[2] for line in under(text, "rejected")] == ["blurred (quality 0.1, wanted 0.3)"] * 2
    assert under(text, "failed") == ["nothing"]


def test_numbers_that_json_lacks_are_text_in_the_facts(tmp_path):
    store = Store(tmp_path / "work")
    tiny_corpus.write(store)
    scores = [Score(RED, "loudness", float("-inf")), Score(RED, "motion", 0.5)]
    store.write("score", 0, Score, scores)
    rows = history(store, RED, STAGES)["rows"]["score"]
    assert [row["value"] for row in rows] == ["-inf", 0.5]


def test_the_facts_of_a_clip_are_its_rows_in_every_table_without_pixels(corpus_store):
    found = history(corpus_store, RED, STAGES)
    assert (found["kind"], found["key"], found["shard"]) == ("clip", RED, 0)
    assert [row["prompt"] for row in found["rows"]["caption"]] == [PROMPT]
    assert {row["clip_id"] for row in found["rows"]["segment"]} == {RED}
    assert {row["video_id"] for row in found["rows"]["ingest"]} == {A}
    assert "mp4" not in found["rows"]["segment"][0]
    assert all(r["key"].startswith(RED) and r["reason"] for r in found["rejected"])
    assert len(found["rejected"]) == 2
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    (one,) = history(corpus_store, f"{RED}/human/0", STAGES)["rows"]["detect"]
    assert one["element_id"] == f"{RED}/human/0"
    assert history(corpus_store, C, STAGES)["failed"][0]["stage"] == "ingest"


def test_a_rejected_clip_shows_the_rule_that_it_failed_then_and_would_fail_now(corpus_store):
    text = explain(corpus_store, GREY, STAGES)
    assert under(text, "scores") == ["motion = 0, allowed 0.01 to 0.2: FAIL"]
    assert under(text, "verdict")[0].startswith("not kept")
    assert under(text, "rejected") == [f"select: {GREY}: motion (motion = 0, allowed 0.0015 to 0.2: FAIL)"]
    assert under(text, "references") == ["none"]


def test_the_sound_of_a_clip_and_who_seems_to_speak_are_told(tmp_path):
    store = Store(tmp_path)
    tiny_corpus.write(store)
    said = Sound(RED, 5.4, -21.5, -3.0, 0.1, 0.4, [Span(0.5, 2.0)], "2 packets of its sound cannot be decoded: bad")
    store.write("listen", 0, Sound, [said])
    face = Speaker(RED, f"{RED}/face/0", "", 1.0, [Span(0.6, 1.9)], 0.05, 0.01)
    store.write("active-speaker", 0, Speaker, [face])
    text = explain(store, RED, [])
    for part in (
        "5.40 s, -21.5 LUFS, peak -3.0 dBFS",
        "0.50 to 2.00 s",
        "face/0 seems to speak: 0.60 to 1.90 s",
        "2 packets",
    ):
        assert part in text


def test_a_verdict_by_other_thresholds_is_called_so(tmp_path):
    store = Store(tmp_path / "work")
    tiny_corpus.write(store)
    assert "run select again" in under(explain(store, RED, STAGES), "verdict")[1]
    tiny_corpus.put(store, "select", 0, Kept, [Kept(RED, A)], settings=asdict(SELECT))
    assert under(explain(store, RED, STAGES), "verdict") == ["kept"]


def test_a_score_that_select_needs_but_was_not_measured_is_reported(corpus_store):
    text = explain(corpus_store, RED, [Select()])
    assert under(text, "rules") == [
        "cannot be applied: the clip lacks the score 'static'; run the stages score and logos again"
    ]
    assert under(text, "scores") == ["motion = 0.1, not used by a rule"]


def test_an_element_brings_only_what_is_its_own(corpus_store):
    text = explain(corpus_store, f"{RED}/upper/0", STAGES)
    assert text.startswith(f"element {RED}/upper/0\n")
    assert len(under(text, "elements")) == 1
    assert under(text, "phrases")[0].startswith("'red coat'")
    assert under(text, "references")[0].startswith(f"{RED}/upper/0")
    assert under(text, "rejected") == ["nothing"]


def test_a_rejected_element_is_found_though_it_has_no_row(corpus_store):
    text = explain(corpus_store, f"{RED}/human/2", STAGES)
    assert under(text, "elements") == ["none"]
    assert under(text, "rejected") == [f"detect: {RED}/human/2: blurred (quality 0.1, wanted 0.3)"]


def test_a_video_lists_what_became_of_each_clip(corpus_store):
    clips = under(explain(corpus_store, A, STAGES), "clips")
    assert clips == [f"{RED}  shot 0, 1.00 to 1.33 s: paired", f"{GREY}  shot 1, 1.00 to 1.33 s: not kept"]
    assert under(explain(corpus_store, B, STAGES), "clips")[0].endswith(": kept")


def test_a_failed_video_says_why_and_how_to_try_again(corpus_store):
    failed = under(explain(corpus_store, C, STAGES), "failed")
    assert failed[0].startswith(f"ingest: {C}: InvalidDataError")
    assert failed[1] == f"segment: {C}: skipped, since it failed in an earlier stage"
    assert failed[2] == f"to retry: a2data retry {corpus_store.root}"


@pytest.mark.parametrize(
    ("key", "meant"),
    [("a", f"video {A}"), (A, f"video {A}"), (f"{A}-00000080", f"clip {GREY}"), (f"{RED}/u", f"element {RED}/upper/0")],
)
def test_the_beginning_of_a_key_is_enough(key, meant, corpus_store):
    assert explain(corpus_store, key, STAGES).splitlines()[0] == meant


def test_a_beginning_that_several_share_is_an_error_that_lists_them(corpus_store):
    with pytest.raises(ValueError, match=f"prefix of 2 clips, such as {RED}, {GREY}"):
        explain(corpus_store, f"{A}-", STAGES)


@pytest.mark.parametrize("key", [f"{A}-00000081", "aaaaaaaaaaaaaaab"])
def test_an_unknown_key_is_an_error_that_names_the_nearest(key, corpus_store):
    with pytest.raises(ValueError, match=rf"begins with '{key}': the nearest are {A}"):
        explain(corpus_store, key, STAGES)


@pytest.mark.parametrize("key", ["", "zzz"])
def test_a_key_like_no_other_is_an_error_that_counts_the_videos(key, corpus_store):
    with pytest.raises(ValueError, match="it has 3 videos, none with a similar id"):
        explain(corpus_store, key, STAGES)


def test_a_corpus_of_which_only_the_manifest_is_known_can_be_explained(tmp_path):
    store = Store(tmp_path / "work")
    store.write("manifest", 0, Source, [tiny_corpus.source("unread-0123", "/films/x.mp4")])
    assert under(explain(store, "unread", STAGES), "clips") == ["none"]
