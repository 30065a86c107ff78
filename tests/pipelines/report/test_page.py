import base64
import hashlib
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import tiny_corpus
from html_page import Page, written
from tiny_corpus import GREEN, GREY, HOSTILE, PROMPT, RED

from a2data.media import video
from a2data.records import ClipVideo, Element, Kept, Packed, Reference, Reject, Source, Video
from a2data.stage import Stage
from a2data.store.folder import Folder
from a2data.store.tables import Store
from pipelines.report.page import tables, write_report
from pipelines.run.local import InProcessExecutor
from pipelines.run.schedule import run
from pipelines.triplets import triplets


def jpeg(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"), validate=True)
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_all_that_the_page_shows_is_in_the_page(page):
    addresses = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href", "poster")]
    assert len(addresses) > 10
    assert all(address.startswith(("data:image/jpeg;base64,", "data:video/mp4;base64,", "#")) for address in addresses)
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert "http://" not in page.html
    assert "https://" not in page.html
    assert "url(" not in page.html


def test_links_within_the_page_lead_somewhere(page):
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {attrs["href"][1:] for attrs in page.all("a")} <= ids


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else(page):
    policy = next(attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs)
    data = [text for text, _ in page.inside("script", type="application/json")]
    for tag in ("style", "script"):
        (text,) = [text for text, _ in page.inside(tag) if text not in data]
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for _, attrs in page.tags:
        assert not [name for name in attrs if name == "style" or name.startswith("on")]


def test_hostile_text_is_shown_and_not_obeyed(page):
    assert [attrs.get("type") for attrs in page.all("script")] == ["application/json"] * 2 + [None]
    assert HOSTILE not in page.html
    assert HOSTILE in page.text("p", **{"class": "prompt"})
    assert HOSTILE in page.text("section", id="failures")
    assert HOSTILE in page.text("footer")
    assert "yolo:/weights/<b>.onnx" in page.text("section", id="recipe")
    assert not page.all("b.onnx")


def test_phrases_wear_the_colour_of_their_reference(page):
    runs = [
        (text, [attrs["class"] for tag, attrs in path if tag == "mark"])
        for text, path in page.inside("p", **{"class": "prompt"})
        if text.strip()
    ]
    joined = [(text, classes) for text, classes in runs if classes]
    assert joined == [("man in a ", ["c0"]), ("red coat", ["c0", "c3"]), ("walks", ["none"])]
    assert "".join(text for text, _ in page.inside("p", **{"class": "prompt"})).strip() == PROMPT
    human, coat = (page.text("figure", **{"class": f"tile {colour}"}) for colour in ("c0", "c3"))
    assert human.startswith("human man in a red coat sim 0.90 copy risk 0.20")
    assert coat.startswith("upper red coat sim 0.70 copy risk 0.40")


def test_stills_show_the_clip_and_references_lie_on_white(page):
    stills = [attrs["src"] for attrs in page.all("img") if attrs["alt"].startswith("frame at")]
    assert len(stills) == 4
    for still in stills:
        assert jpeg(still).shape == (*tiny_corpus.SIZE, 3)
        assert np.abs(jpeg(still) - np.array(tiny_corpus.COLOURS[RED])).max() < 12
    person = jpeg(next(attrs["src"] for attrs in page.all("img") if attrs["alt"] == "person"))
    assert person.shape == (32, 32, 3)
    assert person[0, 0].min() > 245
    assert np.abs(person[16, 16] - np.array(tiny_corpus.COLOURS[GREEN])).max() < 20


def test_the_film_can_be_played(page):
    (film,) = page.all("video")
    frames = video.decode(base64.b64decode(film["src"].removeprefix("data:video/mp4;base64,")))
    assert frames.shape == (tiny_corpus.FRAMES, *tiny_corpus.SIZE, 3)


def test_the_funnel_counts_what_the_tables_hold(page, corpus_store):
    counts = {}
    for stage in (table.name for table in tables(triplets())):
        for text, path in page.inside("tr", id=f"stage-{stage}"):
            if path and "data-count" in path[-1][1]:
                counts[stage, path[-1][1]["data-count"]] = int(text)
    for stage in (table.name for table in tables(triplets())):
        shards = corpus_store.shards(stage)
        assert counts.get((stage, "rows"), 0) == sum(len(corpus_store.values(stage, s, _first(stage))) for s in shards)
    assert counts["ingest", "units"] == 3
    assert counts["ingest", "done"] == 2
    assert counts["ingest", "failed"] == 1
    assert counts["segment", "left out"] == 1
    assert counts["select", "done"] == 2
    assert counts["select", "motion"] == 1
    assert counts["detect", "done"] == 2
    assert counts["detect", "blurred"] == 2
    assert counts["retrieve", "units"] == 4


def _first(stage: str) -> str:
    return "video_id" if stage in ("manifest", "ingest") else "clip_id"


def test_a_clip_rejected_twice_counts_once(tmp_path):
    store = Store(tmp_path / "work")
    twice = [Reject(RED, "dark"), Reject(RED, "static"), Reject(GREY, "static")]
    tiny_corpus.put(store, "select", 0, Kept, [Kept(GREEN, tiny_corpus.B)], num_inputs=3, rejected=twice)
    funnel = written(store, tmp_path).text("tr", id="stage-select")
    assert funnel == "select 3 clips done 1 dark 1 static 1 1 clips"


def test_rejects_are_shown_with_their_rule_and_their_frame(page):
    assert "motion = 0, allowed 0.0015 to 0.2: FAIL" in page.text("section", id="rejects")
    frame = next(attrs["src"] for attrs in page.all("img") if attrs["alt"] == GREY)
    assert jpeg(frame).shape == (*tiny_corpus.SIZE, 3)
    assert np.abs(jpeg(frame) - 90.0).max() < 12


def test_a_rejected_element_is_shown_alone_and_one_without_a_picture_by_its_clip(page):
    shapes = {attrs["alt"]: jpeg(attrs["src"]).shape[:2] for attrs in page.all("img")}
    assert shapes[f"{GREEN}/human/0"] == (32, 32)
    assert shapes[f"{RED}/human/1"] == tiny_corpus.SIZE


def test_models_that_are_not_permissive_are_warned_about_at_the_top_and_in_the_table(page):
    for part in (page.text("header"), page.text("section", id="recipe")):
        assert "yolo:/weights/<b>.onnx" in part
        assert "copyleft" in part
        assert "my-own" in part
    assert "transnetv2" not in page.text("header")


def test_a_stage_made_with_two_settings_is_marked(page):
    assert "detect mixed confidence=0.35" in page.text("section", id="recipe")
    assert "segment mixed" not in page.text("section", id="recipe")


def test_a_shard_that_could_not_be_done_is_among_the_failures(tmp_path):
    store = Store(tmp_path / "work")
    tiny_corpus.write(store)
    store.put(b"the disk is full", "match", "00001.broken")
    assert "match 1 the whole shard the disk is full" in written(store, tmp_path).text("section", id="failures")


def test_failures_say_how_to_retry(page, corpus_store):
    assert f"a2data retry {corpus_store.root}" in page.text("section", id="failures")


def test_an_identity_shows_each_of_its_elements_once(page):
    assert "A 4 elements" in " ".join(
        text.strip() for text, _ in page.inside("section", id="identities") if text.strip()
    )
    assert [attrs.get("title") for attrs in page.all("img")].count("person") == 2


def test_a_picture_that_is_gone_is_said_to_be_gone(corpus_store, tmp_path):
    lost = replace(tiny_corpus.reference("human", 0.9, 0.2), source_element_id=f"{GREEN}/human/9")
    store = Store(tmp_path / "work")
    tiny_corpus.write(store)
    tiny_corpus.put(store, "retrieve", 0, Reference, [lost])
    assert "picture is gone from its table" in written(store, tmp_path).text("section", id="triplets")


@pytest.mark.parametrize(("stage", "record"), [("segment", ClipVideo), ("ingest", Video)])
def test_a_triplet_whose_clip_or_video_is_gone_is_left_out(stage, record, tmp_path):
    store = Store(tmp_path / "work")
    tiny_corpus.write(store)
    tiny_corpus.put(store, stage, 0, record, [])
    assert not written(store, tmp_path).all("article")


def test_tars_that_are_not_in_the_folder_are_named(tmp_path):
    store = Store(tmp_path / "work")
    tiny_corpus.write(store)
    second = Packed(GREEN, "train-00001.tar", "", 0, 100, [], 6, *tiny_corpus.SIZE, 15.0, [], "", 0.0)
    tiny_corpus.put(store, "pack", 1, Packed, [second])
    (tmp_path / "train-00000.tar").write_bytes(bytes(2500))
    header = written(store, tmp_path, shards=Folder(tmp_path)).text("header")
    assert "2 shards, 2.5 kB" in header
    assert "1 of them missing in the" in header


def test_the_same_tables_give_the_same_bytes(corpus_store, page, tmp_path):
    assert written(corpus_store, tmp_path).html == page.html


def test_no_more_samples_are_shown_than_asked_for(corpus_store, tmp_path):
    found = written(corpus_store, tmp_path, num_triplets=0)
    assert not found.all("article")
    assert "0 of 1" in found.text("section", id="triplets")


def test_a_corpus_of_which_only_the_manifest_is_known_has_a_report(tmp_path):
    store = Store(tmp_path / "work")
    store.write("manifest", 0, Source, [tiny_corpus.source("d" * 16, "d.mp4")])
    assert "No references yet" in written(store, tmp_path).text("section", id="triplets")


def test_an_empty_store_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the pipeline first"):
        write_report(Store(tmp_path / "nothing"), tmp_path / "report.html", triplets())


@dataclass(frozen=True)
class Badges(Stage):
    """A stage that the code does not know: a logo in every clip but the grey one, too faint in the green one."""

    reads = {"segment": ClipVideo}
    writes = Element
    row_noun = "badges"
    accounts_for = "clip_id"

    brightness: float = 0.25

    def run(self, model, films):
        for film in films:
            logo = tiny_corpus.element(film.clip_id, "logo", "logo")
            if film.clip_id == GREEN:
                yield Reject(logo.element_id, "faint")
            yield Reject(film.clip_id, "no logo") if film.clip_id == GREY else logo


def test_a_new_stage_of_a_recipe_has_its_place_in_the_report(tmp_path):
    store = Store(tmp_path / "work")
    tiny_corpus.write(store)
    recipe = [*triplets(), Badges()]
    run([Badges()], store, store.shards("segment"), InProcessExecutor(store))

    write_report(store, tmp_path / "report.html", recipe)
    found = Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    assert found.text("tr", id="stage-badges") == "badges 4 clips done 2 no logo 1 left out 1 faint 1 within 2 badges"
    assert "badges brightness=0.25" in found.text("section", id="recipe")
    pictures = {attrs["alt"]: jpeg(attrs["src"]).shape[:2] for attrs in found.all("img")}
    assert pictures[f"{GREEN}/logo/0"] == (32, 32)  # the cut-out of its own table, not a frame of the clip
    assert "stage-badges" not in written(store, tmp_path).html
