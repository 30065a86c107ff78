"""The page, what it exports, and what is made of that. The page's script runs in node, without a browser."""

import json
import re
import shutil
import subprocess

import av
import numpy as np
import pytest
from PIL import Image

from a2data.media import video
from pipelines.bench.a2 import score_file
from pipelines.bench.a2.cases import Case, Element
from pipelines.bench.a2.study import page as study
from pipelines.bench.a2.study import ratings
from pipelines.bench.a2.totals import Measured
from pipelines.sample import output

SYSTEMS = ("ours", "theirs", "tiny")


@pytest.fixture
def world(tmp_path):
    """Four cases with one picture; three systems, of which one lacks a video."""
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "cup.png")
    cases = [
        Case(f"case-{n}", f"A cup </script> {n}.", (Element("object", tmp_path / "cup.png", "cup"),)) for n in range(4)
    ]
    folders = {name: tmp_path / name for name in SYSTEMS}
    for shade, (name, folder) in enumerate(folders.items()):
        folder.mkdir()
        for n, case in enumerate(cases):
            if (name, n) != ("tiny", 3):
                frames = np.full((3, 16, 16, 3), 40 + 60 * shade + 5 * n, np.uint8)
                (folder / f"{case.id}.mp4").write_bytes(
                    output.embed_metadata(video.encode(frames, 8), {"made by": name})
                )
    return cases, folders


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_holds_everything_and_no_name_of_a_system(world, tmp_path):
    cases, folders = world
    key = study.make(cases, folders, tmp_path / "study", seed=3)
    page = (tmp_path / "study/study.html").read_text()
    data = embedded(page)
    assert [case["id"] for case in data["cases"]] == [case.id for case in cases]
    assert [case["prompt"] for case in data["cases"]] == [case.prompt for case in cases]
    assert len(data["criteria"]) == 10
    assert {name: len(c["anchors"]) for name, c in data["criteria"].items() if len(c["anchors"]) != 5} == {
        "face_consistency": 3,
        "object_consistency": 3,
    }
    assert not [name for name in SYSTEMS if name in page]
    assert "http" not in page.replace("http-equiv", "")
    assert key["missing"] == {"case-3": ["tiny"]}
    assert key == json.loads((tmp_path / "study/key.json").read_text())
    assert len({tuple(slots.values()) for slots in key["slots"].values()}) > 1  # shuffled


@pytest.mark.parametrize("embed", [False, True])
def test_each_slot_shows_the_pictures_of_its_system_without_tags(world, tmp_path, embed):
    import base64

    cases, folders = world
    key = study.make(cases, folders, tmp_path / "study", embed=embed)
    for case in embedded((tmp_path / "study/study.html").read_text())["cases"]:
        for slot, source in case["videos"].items():
            data = base64.b64decode(source.partition(",")[2]) if embed else (tmp_path / "study" / source).read_bytes()
            system = key["slots"][case["id"]][slot]
            original = (folders[system] / f"{case['id']}.mp4").read_bytes()
            assert (video.decode(data) == video.decode(original)).all()
            assert b"made by" in original
            assert b"made by" not in data


def test_sound_is_left_out(tmp_path):
    with av.open(str(tmp_path / "loud.mp4"), "w") as out:
        pictures, sound = out.add_stream("libx264", 8), out.add_stream("aac", 44100)
        pictures.width = pictures.height = 16
        pictures.pix_fmt = "yuv420p"
        for n in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 50 * n, np.uint8), format="rgb24")
            out.mux(pictures.encode(frame))
        heard = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        heard.sample_rate = 44100
        out.mux([*sound.encode(heard), *sound.encode(None), *pictures.encode(None)])
    (tmp_path / "quiet.mp4").write_bytes(study.strip_metadata((tmp_path / "loud.mp4").read_bytes(), "loud.mp4"))
    with av.open(str(tmp_path / "quiet.mp4")) as quiet:
        assert [stream.type for stream in quiet.streams] == ["video"]
        assert sum(1 for _ in quiet.decode(video=0)) == 4


def test_a_study_of_nothing_and_a_file_that_is_not_a_video_are_refused(world, tmp_path):
    cases, folders = world
    with pytest.raises(ValueError, match=r"none of x has a video named like a case, such as case-0\.mp4"):
        study.make(cases, {"x": tmp_path}, tmp_path / "study")
    (folders["ours"] / "case-0.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="is not a video that can be copied"):
        study.make(cases, folders, tmp_path / "study")


def fill_in(page, answers, rater):
    """What the page exports after these clicks, a reload in between: its own script, in node."""
    if shutil.which("node") is None:
        pytest.skip("no node to run the page's script in")
    code = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[-1]
    drive = f"""
    const study = {json.dumps(embedded(page))};
    let state = opened(study, null);
    state.rater = {json.dumps(rater)};
    const before = answered(study, state);
    for (const answer of {json.dumps(answers)}) state.scores[nameOf(answer)] = answer.score;
    state = opened(study, JSON.stringify(state));  // the page was closed and opened again
    const other = opened({{ ...study, study: "another" }}, JSON.stringify(state));
    console.log(JSON.stringify([before, answered(study, state), questions(study).length, Object.keys(other.scores).length,
                                exported(study, state)]));
    """
    out = subprocess.run(["node", "-e", code + drive], capture_output=True, text=True, check=True).stdout
    return json.loads(out)


def test_the_page_keeps_what_was_answered_and_exports_what_can_be_read(world, tmp_path):
    cases, folders = world
    key = study.make(cases, folders, tmp_path / "study")
    answers = [
        {"case": "case-0", "slot": "A", "criterion": "face_consistency", "score": 3},
        {"case": "case-3", "slot": "B", "criterion": "video_quality", "score": 2},
    ]
    before, after, total, others, made = fill_in((tmp_path / "study/study.html").read_text(), answers, " Ann ")
    assert (before, after, total, others) == (0, 2, 11 * 10, 0)
    (tmp_path / "ann.json").write_text(json.dumps(made))
    found = ratings.read([tmp_path / "ann.json"], key)
    assert {(r.kind, r.rater, r.case, r.criterion, r.score) for r in found} == {
        ("person", "Ann", "case-0", "face_consistency", 3),
        ("person", "Ann", "case-3", "video_quality", 2),
    }
    assert [r.system for r in found] == [key["slots"]["case-0"]["A"], key["slots"]["case-3"]["B"]]


BROWSER = """
class Element {
  constructor() { this.children = []; this.listeners = {}; this.dataset = {}; }
  append(...those) { this.children.push(...those.filter((one) => one instanceof Element)); }
  replaceChildren() { this.children = []; }
  addEventListener(kind, f) { this.listeners[kind] = f; }
  all() { return [this, ...this.children.flatMap((child) => child.all())]; }
  click() { if (this.listeners.click) this.listeners.click(); else files.push([this.download, this.href]); }
}
const parts = {}, files = [], said = [];
const kept = { value: {}, getItem: (k) => kept.value[k] ?? null, setItem: (k, v) => { kept.value[k] = v; } };
globalThis.localStorage = kept;
globalThis.scrollTo = () => {};
globalThis.alert = (text) => said.push(text);
globalThis.Blob = class { constructor(texts) { this.text = texts.join(""); } };
globalThis.URL.createObjectURL = (blob) => blob.text;
globalThis.document = {
  getElementById: (id) => parts[id] ??= new Element(),
  createElement: (tag) => Object.assign(new Element(), { tag }),
};
document.getElementById("study").textContent = STUDY;
"""
CLICKS = """
const radios = () => parts.case.all().filter((one) => one.type === "radio");
const choose = (radio) => { radio.checked = true; radio.listeners.change(); };
const untouched = Object.keys(kept.value).length;  // opening the page saves nothing over what was saved before
parts.export.click();  // refused: nobody knows who it is
parts.rater.listeners.input({ target: { value: "Bea 7" } });
for (;;) {
  const groups = Map.groupBy ? Map.groupBy(radios(), (one) => one.name) : radios().reduce(
    (all, one) => all.set(one.name, [...(all.get(one.name) || []), one]), new Map());
  for (const group of groups.values()) choose(group[group.length - 1]);
  if (parts.next.disabled) break;
  parts.next.click();
}
choose(radios()[0]);  // changes the last video's first answer
start();  // the page opened again
const checked = radios().filter((one) => one.checked).length;
parts.export.click();
console.log(JSON.stringify({ untouched, said, checked, name: files[0][0], made: JSON.parse(files[0][1]),
                             count: parts.count.textContent, radios: radios().length }));
"""


def test_the_whole_page_is_clicked_through_closed_opened_and_exported(world, tmp_path):
    """The page's own script on a document of twenty lines: what is asked, kept, shown again and exported."""
    if shutil.which("node") is None:
        pytest.skip("no node to run the page's script in")
    cases, folders = world
    key = study.make(cases, folders, tmp_path / "study")
    page = (tmp_path / "study/study.html").read_text()
    code = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[-1]
    browser = BROWSER.replace("STUDY", json.dumps(json.dumps(embedded(page))))
    ran = subprocess.run(["node", "-e", browser + code + CLICKS], capture_output=True, text=True, check=True)
    told = json.loads(ran.stdout)
    assert told["untouched"] == 0
    assert told["said"] == ["Please give your name or number first."]
    assert told["radios"] == 3 * (8 * 5 + 2 * 3)  # the first case again: three videos
    assert told["checked"] == 3 * 10
    assert told["count"] == "110 of 110 answers"
    assert told["name"] == f"ratings-{key['study']}-Bea_7.json"
    (tmp_path / "bea.json").write_text(json.dumps(told["made"]))
    found = ratings.read([tmp_path / "bea.json"], key)
    assert len(found) == 110
    assert sorted(r.score for r in found) == [1] + [5] * 109
    (changed,) = (r for r in found if r.score == 1)
    assert (changed.case, changed.criterion, changed.rater) == ("case-3", "face_consistency", "Bea 7")
    assert changed.system == key["slots"]["case-3"]["A"]


KEY = {"study": "s", "slots": {"a": {"A": "ours", "B": "theirs"}, "b": {"A": "theirs", "B": "ours"}}}
# rater -> (case, slot) -> video quality
SAID = {
    "ann": {("a", "A"): 4, ("a", "B"): 2, ("b", "A"): 1, ("b", "B"): 5},
    "bea": {("a", "A"): 5, ("a", "B"): 2, ("b", "A"): 2, ("b", "B"): 4},
    "cat": {("a", "A"): 3, ("a", "B"): 2, ("b", "A"): 3},
}


def files(tmp_path, said=SAID, **changes):
    for name, scores in said.items():
        rows = [{"case": c, "slot": s, "criterion": "video_quality", "score": n} for (c, s), n in scores.items()]
        data = {"format": "a2-ratings/1", "study": "s", "rater": {"name": name, "kind": "person"}, "ratings": rows}
        (tmp_path / f"{name}.json").write_text(json.dumps(data | changes))
    return [tmp_path / f"{name}.json" for name in said]


def test_three_raters_are_added_up_as_by_hand(tmp_path):
    made = ratings.aggregate(ratings.read(files(tmp_path), KEY), {})["person"]
    ours, theirs = (made["means"][name]["video_quality"] for name in ("ours", "theirs"))
    assert ours["value"] == pytest.approx(((4 + 5 + 3) / 3 + (5 + 4) / 2) / 2)  # a, then b, which Cat did not answer
    assert theirs["value"] == pytest.approx(((2 + 2 + 2) / 3 + (1 + 2 + 3) / 3) / 2)
    assert (ours["low"], ours["high"], ours["n"]) == (4.0, 4.5, 2)  # two cases: one of them, or the other
    assert made["means"]["ours"]["overall"]["value"] == ours["value"]
    assert made["means"]["ours"]["face_consistency"]["value"] is None
    assert (made["raters"], made["ratings"]) == (["ann", "bea", "cat"], 11)
    # squared differences of all ordered pairs within each video, over raters - 1
    within = (1 + 1 + 4) * 2 / 2 + 1 * 2 / 1 + 0 + (1 + 4 + 1) * 2 / 2
    everything = [4, 5, 3, 5, 4, 2, 2, 2, 1, 2, 3]
    between = sum((a - b) ** 2 for a in everything for b in everything) / (11 * 10)
    alpha = made["alpha"]["video_quality"]
    assert alpha["interval"] == pytest.approx(1 - within / 11 / between)
    assert alpha["videos_rated_twice"] == 4
    assert alpha["interval"] != alpha["ordinal"] > 0.5


def test_metrics_are_correlated_with_the_people_video_by_video(tmp_path):
    quality = {"ours": {"a": 0.8, "b": 0.9}, "theirs": {"a": 0.3, "b": 0.2}}
    scores = {
        name: score_file.to_json({case: {"image_quality": Measured(v)} for case, v in rows.items()}, name, {})
        for name, rows in quality.items()
    }
    made = ratings.aggregate(ratings.read(files(tmp_path), KEY), scores)["person"]
    # people: ours a 4, b 4.5, theirs a 2, b 2. In order but for the tie: tau-b = 5 / sqrt(6 * 5)
    found = made["correlation"]["image_quality"]["video_quality"]
    assert found["n"] == 4
    assert found["kendall"] == pytest.approx(5 / np.sqrt(30))
    # ranks 3 4 2 1 and 3 4 1.5 1.5
    assert found["spearman"] == pytest.approx(np.corrcoef([3, 4, 2, 1], [3, 4, 1.5, 1.5])[0, 1])
    assert "rho" in ratings.to_text({"person": made})


def test_a_model_that_fills_in_the_form_is_not_counted_as_people(tmp_path):
    people = files(tmp_path)
    judge = files(tmp_path, {"judge": {("a", "A"): 1}}, rater={"name": "judge", "kind": "model"})
    both = ratings.aggregate(ratings.read([*people, *judge], KEY), {})
    assert both["person"] == ratings.aggregate(ratings.read(people, KEY), {})["person"]
    assert both["model"]["means"]["ours"]["video_quality"]["value"] == 1.0
    assert "1 x model" in ratings.to_text(both)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"study": "t"}, "is of the study t, the key of s"),
        ({"format": "x"}, "is not a ratings file"),
        ({"rater": {}}, "lacks 'name'"),
        ({"rater": {"name": "x", "kind": "parrot"}}, "a person or a model, not 'parrot'"),
        ({"ratings": [{"case": "a", "slot": "C", "criterion": "video_quality", "score": 1}]}, "no video C of a"),
        ({"ratings": [{"case": "a", "slot": "A", "criterion": "face_consistency", "score": 2}]}, "2 is not an answer"),
        ({"ratings": [{"case": "a", "slot": "A", "criterion": "video_quality", "score": 1}] * 2}, "a question twice"),
    ],
)
def test_files_that_do_not_belong_are_refused(tmp_path, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        ratings.read(files(tmp_path, {"ann": SAID["ann"]}, **change), KEY)


def test_two_files_of_one_rater_are_refused(tmp_path):
    (path,) = files(tmp_path, {"ann": SAID["ann"]})
    with pytest.raises(ValueError, match="are both by 'ann'"):
        ratings.read([path, path], KEY)
