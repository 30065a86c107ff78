"""The right answer through real tables and shards: what is lost on the way would show as a figure below 1."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_run
from toy_truth import truth

from a2data.records import Video
from a2data.store.tables import Store
from pipelines.bench.triplets import predictions
from pipelines.bench.triplets.score import score
from pipelines.bench.triplets.self_test import oracle
from pipelines.cli.main import main
from pipelines.films.truth import save


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    known = toy_run.write(truth(), folder)
    save(known, folder)
    return folder, known, predictions.read(folder / "work", folder / "work" / "shards")


def test_a_right_run_scores_one_through_its_shards(run):
    _, known, made = run
    result = score(known, made)
    assert {s.name: s.value for s in result.scores if s.value is not None and s.value < 0.98} == {}
    assert result.headline == 1.0
    assert result.histogram == {}


def test_what_is_read_is_what_was_packed(run):
    _, known, made = run
    right = oracle(known)
    assert [s.clip for s in made.samples] == sorted(s.clip for s in right.samples)
    mine = {s.clip: s for s in right.samples}
    for sample in made.samples:
        assert sample.slots == mine[sample.clip].slots
        assert [r.source_element for r in sample.references] == [r.source_element for r in mine[sample.clip].references]


def test_masks_come_back_to_the_source_through_crop_and_scale(run):
    _, known, made = run
    ref = made.samples[0].references[0]
    film = known.by_file[ref.origin.file]
    box = film.shot_at(ref.origin.frame).entities[0].sights[ref.origin.frame].box
    ys, xs = np.nonzero(ref.origin.in_source(film.height, film.width))
    found = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert np.allclose(ref.origin.crop, toy_run.CROP)
    assert np.abs(np.array(found) - np.array(box)).max() <= 1


def test_a_clip_whose_frames_are_misnumbered_is_found_by_its_pictures(run):
    _, known, made = run
    late = replace(made.samples[0], frames=tuple(f + 1 for f in made.samples[0].frames))
    result = score(known, replace(made, samples=[late, *made.samples[1:]]))
    assert result.histogram == {"frame offset": 1}


def test_the_command_prints_the_score_and_writes_it(run, capsys):
    folder, _, _ = run
    command = [
        "triplet-bench",
        "score",
        str(folder),
        "--work",
        str(folder / "work"),
        "--rerun-shards",
        str(folder / "work" / "shards"),
    ]
    assert main([*command, "--out", str(folder / "out")]) == 0
    out = capsys.readouterr().out
    assert "oracle on tier S: TripletF0.5 1.000" in out
    assert "worst: no failures" in out
    assert "samples the same to the byte: 1.000" in out
    data = json.loads((folder / "out" / "score.json").read_text())
    assert data["triplet_f05"] == 1.0
    assert "<h2>oracle, tier S: 1.000" in (folder / "out" / "score.html").read_text()


def test_scores_of_two_runs_make_one_table(run, capsys):
    folder, _, _ = run
    main(
        [
            "triplet-bench",
            "score",
            str(folder),
            "--work",
            str(folder / "work"),
            "--name",
            "mine",
            "--out",
            str(folder / "mine"),
        ]
    )
    capsys.readouterr()
    assert (
        main(
            [
                "triplet-bench",
                "report",
                str(folder / "mine"),
                str(folder / "mine" / "score.json"),
                "--html",
                str(folder / "p.html"),
            ]
        )
        == 0
    )
    table = capsys.readouterr().out
    assert table.startswith("| | mine, S | mine, S |")
    assert "| TripletF0.5 | 1.000 | 1.000 |" in table
    assert (folder / "p.html").read_text().count("<h2>") == 2


def test_the_command_check_tests_the_benchmark_on_a_set(run, capsys):
    folder, _, _ = run
    assert main(["triplet-bench", "check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "the right answer                 TripletF0.5 1.000\n" in out
    assert "frame offset" in out


def test_shards_of_another_run_are_refused(run, tmp_path, capsys):
    folder, _, _ = run
    assert (
        main(
            [
                "triplet-bench",
                "score",
                str(folder),
                "--work",
                str(tmp_path / "empty"),
                "--shards",
                str(folder / "work" / "shards"),
            ]
        )
        == 2
    )
    assert "belong to different runs" in capsys.readouterr().err
    assert main(["triplet-bench", "score", str(tmp_path), "--work", str(folder / "work")]) == 2
    assert "has no set.json" in capsys.readouterr().err


def test_the_target_of_a_reference_is_where_the_sample_states(run):
    _, known, made = run
    sample = made.samples[0]
    targets = {ref.element for ref in sample.references if ref.role != "background"}
    assert targets <= set(sample.targets)
    for name in targets:
        seen = sample.targets[name]
        assert made.elements[name].best == seen
        film = known.by_file[seen.file]
        boxes = [e.sights[seen.frame].box for e in film.shot_at(seen.frame).entities if seen.frame in e.sights]
        ys, xs = np.nonzero(seen.in_source(film.height, film.width))
        found = np.array((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
        assert min(np.abs(found - np.array(box)).max() for box in boxes) <= 1


def test_a_run_over_two_films_with_one_name_is_refused(run, tmp_path):
    store = Store(tmp_path)
    (film, *_) = predictions.rows(Store(run[0] / "work"), "ingest", Video)
    store.write("ingest", 0, Video, [film, replace(film, video_id="f" * 16, path=f"/another/{Path(film.path).name}")])
    with pytest.raises(ValueError, match=f"several videos named {Path(film.path).name}"):
        predictions.read(tmp_path, tmp_path / "shards")
