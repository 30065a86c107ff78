"""The page that compares two videos, its export, and the pairs with the raters' preferences."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("torch")

import tiny_shards

from a2data.dataset import pair as pairs
from a2data.dataset import writer
from a2data.media import video
from a2data.store.folder import Folder
from pipelines.bench.a2.study import page
from pipelines.prefer import study
from pipelines.prefer.make import make, read
from pipelines.prefer.stage import Prefer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pairs, and the key and the page of their study."""
    home = tmp_path_factory.mktemp("study")
    packed = tiny_shards.make(home / "packed", count=4, tars=1)
    stage = Prefer(shards=str(packed), out=str(home / "pairs"), frames=13, kinds="reversed", grades="3")
    make(stage, 0.25, log=lambda text: None)
    return stage.out, study.make(stage.out, home / "page", seed=2), home / "page"


def embedded(folder: Path):
    text = re.search(
        r'<script type="application/json" id="study">(.*?)</script>', (folder / "study.html").read_text(), re.S
    )
    return json.loads(text[1])


def form(key, name, scores, kind="person"):
    rows = [{"case": case, "slot": "A", "criterion": "motion", "score": score} for case, score in scores.items()]
    return {"format": "a2-ratings/1", "study": key["study"], "rater": {"name": name, "kind": kind}, "ratings": rows}


def for_(key, case, side):
    """The answer on the page that prefers a side of the pair."""
    return 2 if side == "tie" else 1 if key["slots"][case]["A"] == side else 3


def test_the_page_shows_both_videos_without_saying_which_is_which(made):
    shards, key, folder = made
    data, text = embedded(folder), (folder / "study.html").read_text()
    assert "reversed" not in text.split("</style>")[1]
    assert "chosen" not in text
    folder_of = {row.clip_id: row for row in writer.rows(Folder(shards))}
    assert sorted(key["pairs"].values()) == sorted(folder_of)
    assert len({tuple(slots.values()) for slots in key["slots"].values()}) == 2  # sides are shuffled
    for case in data["cases"]:
        triplet = read(Folder(shards), folder_of[key["pairs"][case["id"]]])
        shown = {"chosen": triplet.video, "rejected": triplet.rejected}
        for slot, source in case["videos"].items():
            original = video.decode(shown[key["slots"][case["id"]][slot]])
            assert (video.decode((folder / source).read_bytes()) == original).all()


@pytest.mark.skipif(not shutil.which("node"), reason="node runs the page's script")
def test_the_page_asks_once_for_each_pair(made):
    """The script of the page, in node."""
    script = Path(page.__file__).with_name("study.js").read_text()
    data = json.dumps(embedded(made[2]))
    ask = f"const s = {data}; const q = questions(s); const scores = {{}}; scores[nameOf(q[0])] = 3;"
    say = "console.log(JSON.stringify([q.length, exported(s, {scores, rater: 'ann'})]))"
    count, out = json.loads(subprocess.run(["node", "-e", script + ask + say], capture_output=True, check=True).stdout)
    assert count == len(made[1]["slots"])
    assert out["ratings"] == [
        {"case": embedded(made[2])["cases"][0]["id"], "slot": "A", "criterion": "motion", "score": 3}
    ]


def test_the_majority_decides_and_disagreement_is_left_out(made, tmp_path):
    shards, key, _ = made
    cases = sorted(key["slots"])
    sides = [("chosen", "chosen", "tie"), ("rejected", "rejected", "rejected"), ("tie", "tie", "chosen")]
    sides += [("chosen", "rejected", "tie")] * (len(cases) - 3)
    files = []
    for rater in range(3):
        scores = {case: for_(key, case, sides[n][rater]) for n, case in enumerate(cases)}
        files.append(tmp_path / f"{rater}.json")
        files[-1].write_text(json.dumps(form(key, f"rater {rater}", scores)))
    counts = study.join(shards, files, key, str(tmp_path / "joined"))
    assert counts == {"kept": 1, "swapped": 1, "ties": 1, "disagreed": len(cases) - 3}
    before = {row.clip_id: read(Folder(shards), row) for row in writer.rows(Folder(shards))}
    f = Folder(str(tmp_path / "joined"))
    joined = {row.clip_id: read(f, row) for row in writer.rows(f)}
    assert set(joined) == {key["pairs"][case] for case in cases[:3]}
    kept, swapped, tie = (joined[key["pairs"][case]] for case in cases[:3])
    assert (kept.video, kept.rejected) == (before[kept.facts.clip_id].video, before[kept.facts.clip_id].rejected)
    assert (swapped.rejected, swapped.video) == (
        before[swapped.facts.clip_id].video,
        before[swapped.facts.clip_id].rejected,
    )
    assert tie.pair.tie
    assert {t.pair.judge for t in joined.values()} == {"3 people"}
    assert {row.split for row in writer.rows(f)} <= {"train", "eval"}
    pairs.check_agreement((k, t.pair) for k, t in joined.items())
    disagree = [(k, t.pair) for k, t in (*joined.items(), *before.items())]
    with pytest.raises(ValueError, match="disagree"):  # the swapped one, and the same by rule
        pairs.check_agreement(disagree)


def test_answers_that_cannot_be_joined_are_refused(made, tmp_path):
    shards, key, _ = made
    case = min(key["slots"])
    for name, data, message in (
        ("mixed", form(key, "m", {case: 1}, "model"), "by people and by models"),
        ("score", form(key, "s", {case: 7}), "not an answer of the form"),
        ("study", form(key | {"study": "other"}, "o", {case: 1}), "study other"),
    ):
        one, two = tmp_path / f"{name}.json", tmp_path / f"{name}-ann.json"
        one.write_text(json.dumps(data))
        two.write_text(json.dumps(form(key, "ann", {case: 1})))
        with pytest.raises(ValueError, match=message):
            study.join(shards, [one, two], key, str(tmp_path / "out"))
    ann, bea = tmp_path / "a.json", tmp_path / "b.json"
    ann.write_text(json.dumps(form(key, "ann", {case: 1})))
    bea.write_text(json.dumps(form(key, "bea", {case: 3})))
    with pytest.raises(ValueError, match="disagree about all 1 pairs"):
        study.join(shards, [ann, bea], key, str(tmp_path / "out"))
