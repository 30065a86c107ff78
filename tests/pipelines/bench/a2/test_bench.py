"""The command, from pictures to the page, without a network."""

import json
import re

import numpy as np
import pytest
import tiny_shards
from PIL import Image

from a2data.media import video
from pipelines.bench.a2 import cases
from pipelines.bench.a2.totals import METRICS, published
from pipelines.cli.main import main


@pytest.fixture
def pictures(tmp_path):
    for n, role in enumerate(cases.ROLES):
        (tmp_path / "pictures" / role).mkdir(parents=True)
        for k in range(2):
            Image.fromarray(np.full((20, 30, 3), 60 * n + k, np.uint8)).save(
                tmp_path / f"pictures/{role}/thing_{k}.png"
            )
    return tmp_path / "pictures"


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path / "nothing"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nothing"))


def test_from_pictures_to_a_page_that_compares(pictures, tmp_path, no_weights, capsys):
    bench = tmp_path / "bench"
    assert main(["bench", "make", str(bench), "--pictures", str(pictures), "--count", "4", "--case-seed", "1"]) == 0
    made = cases.read(bench)
    assert len(made) == 4
    lines = []
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        for n, case in enumerate(made):
            (tmp_path / name / f"{case.id}.mp4").write_bytes(video.encode(np.full((3, 16, 16, 3), 40 * n, np.uint8), 8))
    for case in made:
        lines += [json.dumps({"case": case.id, "metric": m, "value": v}) for m, v in published("SkyReels-A2").items()]
    (tmp_path / "elsewhere.jsonl").write_text("\n".join(lines))
    score = [
        "bench",
        "score",
        "--in-process",
        "--quiet",
        "--cases",
        str(bench),
        "--measured",
        str(tmp_path / "elsewhere.jsonl"),
    ]
    assert main([*score, str(tmp_path / "ours"), "--out", str(tmp_path / "score")]) == 0
    said = json.loads((tmp_path / "score/score.json").read_text())
    assert said["name"] == "ours"
    assert round(said["strict"]["paper-fit"]["value"], 3) == 0.818
    assert said["models"] == dict.fromkeys(METRICS, "elsewhere.jsonl")
    board = tmp_path / "board.html"
    assert main(["bench", "leaderboard", str(tmp_path / "score"), "--out", str(board)]) == 0
    assert "ours" in board.read_text()

    systems = [f"--system={name}={tmp_path / name}" for name in ("ours", "theirs")]
    assert main(["bench", "study", "make", str(tmp_path / "study"), "--cases", str(bench), *systems]) == 0
    page = (tmp_path / "study/study.html").read_text()
    study = json.loads(re.search(r'id="study">(.*?)</script>', page, re.DOTALL)[1])
    rows = [
        {"case": case["id"], "slot": slot, "criterion": name, "score": 5}
        for case in study["cases"] for slot in case["videos"] for name in study["criteria"]
    ]  # fmt: skip
    rater = {"format": "a2-ratings/1", "study": study["study"], "rater": {"name": "ann"}, "ratings": rows}
    (tmp_path / "ann.json").write_text(json.dumps(rater))
    key, out = tmp_path / "study/key.json", tmp_path / "people.json"
    aggregate = ["bench", "study", "aggregate", str(tmp_path / "ann.json"), "--key", str(key), "--out", str(out)]
    assert main([*aggregate, "--score", str(tmp_path / "score")]) == 0
    assert json.loads(out.read_text())["person"]["means"]["theirs"]["overall"]["value"] == 5
    assert main(["bench", "leaderboard", "--out", str(board), "--study", str(out)]) == 0
    assert "Ratings by people" in board.read_text()


def test_a_missing_video_is_said_and_missing_models_are_skipped(pictures, tmp_path, no_weights, capsys):
    bench = tmp_path / "bench"
    main(["bench", "make", str(bench), "--pictures", str(pictures), "--count", "2"])
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/case-000.mp4").write_bytes(video.encode(np.zeros((3, 16, 16, 3), np.uint8), 8))
    main(
        [
            "bench",
            "score",
            "--in-process",
            "--quiet",
            str(tmp_path / "ours"),
            "--cases",
            str(bench),
            "--out",
            str(tmp_path / "score"),
        ]
    )
    told = capsys.readouterr()
    assert "case-001.mp4 does not exist" in told.err
    said = json.loads((tmp_path / "score/score.json").read_text())
    assert said["missing_videos"] == ["case-001"]
    for variant in ("lenient", "strict"):
        assert all(said[variant][m]["value"] is None for m in METRICS)
        assert said[variant]["paper-fit"]["note"].startswith("no total without id_consistency, object_consistency")


def test_pictures_of_the_training_shards_are_named(pictures, tmp_path, capsys):
    shards = tiny_shards.make(tmp_path / "shards", 4)
    (pictures / "object/leak.png").write_bytes(tiny_shards.triplet(1).pictures["ref0"])
    make = [
        "bench",
        "make",
        str(tmp_path / "bench"),
        "--pictures",
        str(pictures),
        "--count",
        "12",
        "--against",
        str(shards),
    ]
    assert main(make) == 1
    assert "which is ref0 of clip01-00000000" in capsys.readouterr().err
    (pictures / "object/leak.png").unlink()
    assert main([*make[:5], "--count", "8", *make[7:]]) == 0


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["score", "x", "--cases", "x", "--out", "x", "--model", "nose=dlib"], "write KIND=CARD"),
        (["score", "x", "--cases", "x", "--out", "x", "--model", "faces=nobody"], "no model called 'nobody'"),
        (["study", "make", "x", "--cases", "x", "--system", "ours"], "write NAME=DIR"),
        (["leaderboard", "nothing.json", "--out", "x"], "nothing.json"),
    ],
)
def test_a_command_that_makes_no_sense_is_told_so(flags, complaint, capsys):
    assert main(["bench", *flags]) == 2
    assert complaint in capsys.readouterr().err
