import json

import pytest

from pipelines.bench.a2 import score_file
from pipelines.bench.a2.totals import METRICS, Measured

NO_QUALITY = Measured(skipped="no MUSIQ")
TABLE = {
    "a": {"id_consistency": Measured(0.5, 16, 32), "dynamic_degree": Measured(1.0), "image_quality": NO_QUALITY},
    "b": {"id_consistency": Measured(None, 0, 32), "dynamic_degree": Measured(0.0), "image_quality": NO_QUALITY},
    "c": {
        "id_consistency": Measured(None, 0, 0),
        "dynamic_degree": Measured(None, 0, 0),
        "image_quality": NO_QUALITY,
    },
}


def test_a_score_comes_back_from_its_file_and_gives_the_same_table(tmp_path):
    made = score_file.to_json(TABLE, "ours", {"dynamic_degree": "raft-large@1"}, missing=["c"])
    score_file.write(made, tmp_path)
    assert score_file.read(tmp_path) == json.loads(json.dumps(made)) == score_file.read(tmp_path / "score.json")
    assert score_file.table_of(made) == TABLE
    assert made["missing_videos"] == ["c"]
    assert made["detection"] == {"id_consistency": {"seen": 16, "of": 64, "rate": 0.25}}


def test_both_variants_and_every_case_are_printed():
    made = score_file.to_json(TABLE, "ours", {}, missing=["c"])
    text, page = score_file.to_text(made), score_file.to_markdown([made])
    assert "ours: 3 cases, 1 without a video" in text
    assert "skipped: no MUSIQ" in text
    assert "skipped: not measured" in text  # not measured at all
    assert "| a | 0.500 (16/32) | 1.000 | skipped |" in page
    assert "| b | not found in 32 | 0.000 | skipped |" in page
    assert "| c | no video | no video | skipped |" in page
    assert all(f"| {name} |" in page for name in METRICS)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "score.json").write_text('{"format": "triplet-score/1"}')
    with pytest.raises(ValueError, match="is not an A2-Bench score"):
        score_file.read(tmp_path)
