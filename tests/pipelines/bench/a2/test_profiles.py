import numpy as np
import pytest
import toy_bench

from model_zoo import cards
from pipelines.bench.a2 import profiles, stages
from pipelines.bench.a2.cases import Case, Element
from pipelines.bench.a2.profiles import PROFILES, MetricGroup
from pipelines.bench.a2.totals import METRICS, Measured

BLACK = toy_bench.sampled(np.zeros((3, 64, 64, 3), np.uint8), 8)


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))


def test_what_is_not_here_is_skipped_with_a_sentence_and_never_a_number(no_weights):
    found = {}
    for stage in stages.metric_stages(PROFILES["paper"]):
        expert = stage.load()
        rows = list(stage.run(expert, [toy_bench.asked()], [BLACK]))
        assert [row.metric for row in rows] == stage.names() == list(expert.metrics)
        found |= {row.metric: row for row in rows}
    assert set(METRICS) <= set(found)
    assert all(not row.found and len(row.skipped) > 20 for row in found.values())
    assert "a2data models fetch viclip" in found["text_similarity"].skipped
    assert "A2DATA_REMOTE_CODE" in found["motion_smoothness"].skipped


def test_that_a_model_was_not_here_is_part_of_the_key(no_weights, tmp_path):
    (stage,) = stages.metric_stages(PROFILES["paper"], ["dynamic-degree"])
    before = stage.models()
    assert before == {"raft-large": "not here"}
    (tmp_path / "raft_large_C_T_V1-22a6c225.pth").write_bytes(b"weights")
    assert stage.models() != before


def test_a_metric_bears_its_plain_name_with_the_papers_models_only():
    paper = {name for stage in stages.metric_stages(PROFILES["paper"]) for name in stage.names()}
    assert paper == {*METRICS, "copy_paste", "motion_smoothness.by-flow"}
    builtin = {name for stage in stages.metric_stages(PROFILES["builtin"]) for name in stage.names()}
    # of which there is no stand-in without weights
    assert builtin & set(METRICS) == {"aesthetic_quality", "text_similarity"}
    assert "object_consistency.builtin-detect.mobilenetv2" in builtin
    assert profiles.metric_name("id_consistency", {"faces": "antelopev2"}) == "id_consistency"
    with pytest.raises(KeyError, match="no model called 'raft-huge'"):
        profiles.metric_name("dynamic_degree", {"flow": "raft-huge"})


def test_every_model_of_a_profile_has_a_card():
    assert {profile: set(models) for profile, models in PROFILES.items()} == {
        key: set(profiles.KINDS) for key in PROFILES
    }
    assert all(cards.base_card(name) for models in PROFILES.values() for name in models.values() if name)


def test_only_what_is_asked_for_is_measured():
    assert [stage.name() for stage in stages.metric_stages(PROFILES["builtin"], ["text-alignment", "copy-paste"])] == [
        "copy-paste",
        "text-alignment",
    ]
    with pytest.raises(ValueError, match="unknown metric 'beauty'; choose from identity, copy-paste"):
        stages.metric_stages(PROFILES["builtin"], ["beauty"])


def test_a_share_of_a_gpu_is_asked_for_as_the_cards_say():
    (things,) = stages.metric_stages(PROFILES["paper"], ["subject-consistency"])
    assert things.gpus == min(
        1.0, sum(cards.gpus(name) for name in ("grounding-dino-tiny", "sam2.1-hiera-large", "clip-vit-l14"))
    )
    assert [
        stage.gpus for stage in stages.metric_stages(PROFILES["builtin"], ["identity", "quality", "dynamic-degree"])
    ] == [
        0,
        0,
        0,
    ]


def test_values_from_elsewhere_are_read_and_wrong_ones_named():
    cases = [Case("a", "", ())]
    lines = ['{"case": "a", "metric": "image_quality", "value": 0.6}']
    assert profiles.read_external(lines, "f", cases) == {"a": {"image_quality": Measured(0.6)}}
    for bad in (
        '{"case": "b", "metric": "x", "value": 1}',
        '{"case": "a"}',
        "{",
        '{"case": "a", "metric": "x", "value": null}',
    ):
        with pytest.raises(ValueError, match="f, line 1"):
            profiles.read_external([bad], "f", cases)
    with pytest.raises(ValueError, match=r"line 2: .* second value"):
        profiles.read_external(lines * 2, "f", cases)


def test_a_missing_video_counts_in_what_the_others_have_and_its_case_asks_for(tmp_path):
    gone = Case("gone", "", (Element("object", tmp_path / "cup.png", "cup"),))
    table = {"here": {m: Measured(0.5) for m in ("iq", "id_consistency", "object_consistency.x", "copy_paste.dlib")}}
    table["here"]["words"] = Measured(skipped="no words")
    profiles.fill_missing(table, [gone])
    assert table["gone"]["id_consistency"].skipped == "the case has no human"
    assert table["gone"]["object_consistency.x"] == table["gone"]["iq"] == Measured(None, 0, 0)
    assert table["gone"]["copy_paste.dlib"].skipped  # 0 would be a figure in the middle
    assert "words" not in table["gone"]
    assert table["here"]["iq"] == Measured(0.5)


def test_one_row_for_each_metric_of_each_expert():
    light = MetricGroup(("light",), lambda asked, made: {"light": Measured(float(made.frames.mean()))})
    found = profiles.measure_all([light, MetricGroup(("x", "y"), None, "no x")], toy_bench.asked(), BLACK)
    assert found == {"light": Measured(0.0), "x": Measured(skipped="no x"), "y": Measured(skipped="no x")}
