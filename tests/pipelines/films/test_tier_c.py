"""Tier C, with drawn cut-outs and plates in folders."""

import cv2
import numpy as np
import pytest

from a2data.media.images import to_png
from pipelines.bench.triplets.score import score
from pipelines.bench.triplets.self_test import oracle
from pipelines.cli.main import main
from pipelines.films import tier_c
from pipelines.films.truth import load


def ellipse(colour, height=240, width=160):
    alpha = np.zeros((height, width), np.uint8)
    cv2.ellipse(alpha, (width // 2, height // 2), (width // 2 - 12, height // 2 - 12), 0, 0, 360, 255, -1)
    alpha = cv2.GaussianBlur(alpha, (0, 0), 3)
    return np.dstack([np.full((height, width, 3), colour, np.uint8), alpha])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("composites")
    for kind, name, colour in (
        ("human", "ann.front", (200, 40, 40)),
        ("human", "ann.side", (180, 40, 40)),
        ("object", "cup", (40, 60, 200)),
    ):
        (folder / "cut" / kind).mkdir(parents=True, exist_ok=True)
        (folder / "cut" / kind / f"{name}.png").write_bytes(to_png(ellipse(colour)))
    (folder / "plates").mkdir()
    for n in range(2):
        picture = np.random.default_rng(n).integers(60, 190, (9, 16, 3), np.uint8)
        (folder / "plates" / f"wall{n}.png").write_bytes(to_png(cv2.resize(picture, (640, 360))))
    command = ["triplet-bench", "make", str(folder / "set"), "--tier", "C"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tier_c, "FRAMES", 16)  # a shot: for speed
        assert main([*command, "--cutouts", str(folder / "cut"), "--plates", str(folder / "plates")]) == 0
    return folder


def test_a_set_is_made_of_the_users_pictures(folders, capsys):
    truth = load(folders / "set")
    assert {e.id for u in truth.units for e in u.shot.entities} == {"ann", "cup"}
    assert {u.shot.place for u in truth.units} == {"wall0", "wall1"}
    assert [u.shot.take for u in truth.units].count("copied") == 2
    assert all((folders / "set" / u.shot.plate).exists() for u in truth.units)
    assert len(truth.achievable) == len(truth.units)


def test_the_oracle_scores_one_in_spite_of_soft_edges(folders):
    truth = load(folders / "set")
    result = score(truth, oracle(truth), folders / "set")
    short = {s.name for s in result.scores if s.value is not None and s.value < 1}
    assert short <= {"references from a frame unlike the clip's"}  # there are two plates only
    assert result.headline == 1.0


def test_alpha_is_what_the_picture_was_mixed_with():
    who = tier_c.CutOut("a", "object", tier_c.demo_people.premultiplied(
        np.dstack([np.full((100, 80, 3), 250.0), ellipse((0, 0, 0), 100, 80)[..., 3:] / 255.0])), is_whole=True)  # fmt: skip
    part = tier_c.Part(who, (0.5, 0.8, 0.5), (0.6, 0.8, 0.5), 3.0, False)
    plate = np.full((540, 960, 3), 50, np.uint8)
    picture, shown = tier_c.draw(tier_c.CompositeShot("p", "day", False, (part,)), plate, 0.3, -1)
    alpha, visible = shown["a"]
    assert visible == 1.0
    assert ((alpha > 0.1) & (alpha < 0.9)).mean() / (alpha > 0.9).mean() > 0.05  # soft edges there are
    assert np.abs(picture.astype(float) - (50 + 200 * alpha[..., None])).max() <= 3


def test_nearer_subjects_hide_those_behind():
    whole = tier_c.CutOut("a", "object", tier_c.demo_people.premultiplied(
        np.dstack([np.full((100, 80, 3), 250.0), np.ones((100, 80, 1))])), is_whole=True)  # fmt: skip
    near = tier_c.CutOut("b", "object", whole.picture, is_whole=True)
    parts = tuple(tier_c.Part(w, (x, 0.8, 0.5), (x, 0.8, 0.5), 0.0, False) for w, x in ((whole, 0.5), (near, 0.56)))
    _, shown = tier_c.draw(tier_c.CompositeShot("p", "day", False, parts), np.zeros((540, 960, 3), np.uint8), 0.0, -1)
    assert shown["b"][1] == 1.0
    assert 0 < shown["a"][1] < 0.5
    assert (shown["a"][0] + shown["b"][0]).max() <= 1.0


def test_a_folder_without_pictures_is_refused(tmp_path, capsys):
    assert main(["triplet-bench", "make", str(tmp_path / "set"), "--tier", "C", "--cutouts", str(tmp_path)]) == 2
    assert "has no cut-outs" in capsys.readouterr().err
    (tmp_path / "human").mkdir()
    (tmp_path / "human" / "a.png").write_bytes(to_png(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(ValueError, match="has no alpha"):
        tier_c.read_cut_outs(tmp_path)
    assert main(["triplet-bench", "make", str(tmp_path / "set"), "x.mp4"]) == 2
    assert "VIDEOS require --tier R" in capsys.readouterr().err
