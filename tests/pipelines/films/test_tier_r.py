"""Tier R."""

import json

import numpy as np
import pytest

from a2data.media import video
from benchmarks import triplet_bench
from pipelines.bench.triplets.score import score
from pipelines.bench.triplets.self_test import oracle
from pipelines.cli.main import main
from pipelines.films.truth import load


def test_a_draft_is_filled_in_by_hand(tmp_path, capsys):
    for name in ("a.mp4", "b.mp4"):
        frames = np.random.default_rng(len(name)).integers(0, 255, (12, 32, 48, 3), np.uint8)
        (tmp_path / name).write_bytes(video.encode(frames, 12))
    films = [str(tmp_path / name) for name in ("a.mp4", "b.mp4")]
    assert main(["triplet-bench", "make", str(tmp_path / "set"), *films, "--tier", "R"]) == 0
    assert "2 films, 2 shots, 0 of them can become triplets" in capsys.readouterr().out
    for name in ("a", "b"):
        path = tmp_path / "set" / f"{name}.truth.json"
        data = json.loads(path.read_text())
        data["shots"][0]["entities"] = [{"id": "ann", "kind": "human", "nouns": ["woman"]}]
        path.write_text(json.dumps(data))
    truth = load(tmp_path / "set")
    assert len(truth.achievable) == 2
    result = score(truth, oracle(truth))
    assert result.headline == 1.0
    assert result.value("references, clean") is None  # without a mask


def test_two_films_with_one_name_are_rejected(tmp_path, capsys):
    assert main(["triplet-bench", "make", str(tmp_path), "x/a.mp4", "y/a.mkv", "--tier", "R"]) == 2
    assert "two videos have the name a" in capsys.readouterr().err


@pytest.mark.slow
def test_the_corpus_is_a_set_on_which_the_benchmark_holds(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(triplet_bench, "CORPUS", corpus)
    truth = triplet_bench.corpus_truth(tmp_path)
    assert len(truth.films) == 15
    assert len(truth.achievable) == 25
    assert score(truth, oracle(truth), tmp_path).headline == 1.0
