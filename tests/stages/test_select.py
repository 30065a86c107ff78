from dataclasses import replace
from math import inf, nan, nextafter
from types import SimpleNamespace

import pytest

from a2data.records import Kept, Reject, Sound
from a2data.records import Score as Row
from model_zoo import cards
from stages.select import MEASURED_BY, Select, apply_thresholds

GOOD = {"motion": 0.01, "static": 0.1, "sharpness": 100.0, "luma": 0.5, "luma_range": 0.1, "bars": 0.0, "text": 0.0}
GOOD |= {"burnt_text": 0.0, "logo": 0.0}
CLIP = SimpleNamespace(clip_id="c", video_id="v")


def run(scores: dict[str, float], settings: Select | None = None, sounds: list[Sound] | None = None) -> list:
    rows = [Row("c", m, v) for m, v in scores.items()]
    return list((settings or Select()).run(None, [CLIP], rows, [], sounds or []))


@pytest.mark.parametrize(
    ("metric", "setting", "outside"),
    [
        ("motion", "min_motion", -inf),
        ("motion", "max_motion", inf),
        ("static", "max_static", inf),
        ("sharpness", "min_sharpness", -inf),
        ("luma", "min_luma", -inf),
        ("luma", "max_luma", inf),
        ("luma_range", "max_luma_range", inf),
        ("bars", "max_bars", inf),
        ("text", "max_text", inf),
        ("burnt_text", "max_burnt_text", inf),
        ("logo", "max_logo", inf),
    ],
)
def test_a_value_on_the_threshold_passes_and_the_next_one_fails(metric, setting, outside):
    edge = getattr(Select(), setting)
    assert run(GOOD | {metric: edge}) == [Kept("c", "v")]
    (reject,) = run(GOOD | {metric: nextafter(edge, outside)})
    assert (reject.key, reject.reason) == ("c", metric)
    assert "FAIL" in reject.detail


def test_the_first_rule_that_fails_is_the_reason():
    assert [r.reason for r in run(GOOD | {"motion": 0.0, "static": 1.0, "text": 1.0})] == ["motion"]


def test_every_rule_answers_even_after_one_failed():
    rules = apply_thresholds(GOOD | {"motion": 0.0}, Select())
    assert [r.name for r in rules] == list(GOOD)
    assert [r.passed for r in rules] == [False] + 8 * [True]


def test_a_clip_without_a_score_is_an_error_and_never_kept():
    with pytest.raises(ValueError, match="clip c has no score 'text'"):
        run({metric: value for metric, value in GOOD.items() if metric != "text"})
    with pytest.raises(ValueError, match="has no score"):
        run({})


def test_scores_of_other_clips_do_not_count():
    with pytest.raises(ValueError, match="has no score"):
        list(Select().run(None, [CLIP], [Row("other", m, v) for m, v in GOOD.items()], [], []))


def test_an_open_threshold_asks_for_no_score():
    settings = replace(Select(), max_text=inf, min_motion=-inf, max_motion=inf)
    assert run({m: v for m, v in GOOD.items() if m not in ("text", "motion")}, settings) == [Kept("c", "v")]


def test_a_score_that_is_not_a_number_is_not_kept():
    assert isinstance(run(GOOD | {"luma": nan})[0], Reject)


def test_a_signing_person_passes_and_a_still_picture_does_not():
    assert run(GOOD | {"motion": 0.0044, "static": 0.0, "sharpness": 196.0})[0] == Kept("c", "v")
    assert run(GOOD | {"motion": 0.0001, "static": 0.99})[0].reason == "motion"


@pytest.mark.parametrize(
    ("setting", "metric", "passes", "fails"),
    [
        ("min_aesthetic", "aesthetic", 4.0, 3.9),
        ("max_nsfw", "nsfw", 4.0, 4.1),
        ("min_flow", "flow", 4.0, 3.9),
        ("max_flow", "flow", 4.0, 4.1),
        ("min_flow_top5", "flow_top5", 4.0, 3.9),
        ("min_codec_motion", "codec_motion", 4.0, 3.9),
        ("min_codec_motion_least", "codec_motion_least", 4.0, 3.9),
    ],
)
def test_what_models_measure_is_asked_about_only_when_told_to(setting, metric, passes, fails):
    assert run(GOOD | {metric: fails}) == [Kept("c", "v")]
    told = replace(Select(), **{setting: 4.0})
    assert run(GOOD | {metric: passes}, told) == [Kept("c", "v")]
    assert [r.reason for r in run(GOOD | {metric: fails}, told)] == [metric]
    with pytest.raises(ValueError, match=f"no score '{metric}'.*--set {MEASURED_BY[metric]}"):
        run(GOOD, told)


@pytest.mark.parametrize(
    ("setting", "metric", "passes", "fails"),
    [
        ("min_loudness", "loudness", -20.0, -50.0),
        ("max_loudness", "loudness", -50.0, -20.0),
        ("max_silence", "silence", 0.1, 0.9),
        ("min_speech", "speech", 0.9, 0.1),
        ("max_speech", "speech", 0.1, 0.9),
    ],
)
def test_sound_is_asked_about_only_when_told_to(setting, metric, passes, fails):
    def sounds(value):
        told = {"loudness": -30.0, "silence": 0.0, "speech": 0.5} | {metric: value}
        other = Sound("other", 1.0, *[0.0] * 4, [], "")
        return [Sound("c", 1.0, told["loudness"], 0.0, told["silence"], told["speech"], [], ""), other]

    assert run(GOOD, sounds=sounds(fails)) == [Kept("c", "v")]
    told = replace(Select(), **{setting: (passes + fails) / 2})
    assert run(GOOD, told, sounds(passes)) == [Kept("c", "v")]
    assert [r.reason for r in run(GOOD, told, sounds(fails))] == [metric]


def test_speech_that_was_not_measured_is_an_error():
    unheard = [Sound("c", 1.0, -20.0, -6.0, 0.0, -1.0, [], "")]
    with pytest.raises(ValueError, match=r"no score 'speech': let the listen stage measure it .*listen\.vad_model"):
        run(GOOD, replace(Select(), min_speech=0.1), unheard)


def test_what_is_advised_for_a_missing_score_is_a_setting_of_score_and_a_card_of_that_role():
    from stages.score import Score

    for setting in MEASURED_BY.values():
        if setting.startswith("listen."):
            assert cards.card(setting.partition("=")[2]).role == "vad"
            continue
        name, value = setting.removeprefix("score.").split("=")
        assert hasattr(Score(), name)
        if name != "codec_motion":
            assert cards.card(value).role in {"text_model": ["text"], "quality_models": ["quality", "flow"]}[name]
