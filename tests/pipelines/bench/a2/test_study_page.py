"""The study's page in a real browser: three raters click through it, export, and are added up by hand."""

import json

import numpy as np
import pytest
import toy_bench
from PIL import Image

from pipelines.bench.a2.cases import Case, Element
from pipelines.bench.a2.study import page as study
from pipelines.bench.a2.study import ratings

RATERS = ("ann", "bea", "cat")


@pytest.fixture
def pages(tmp_path):
    """Two cases, two systems; everything inside the page."""
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "cup.png")
    cases = [Case(f"case-{n}", f"A cup {n}.", (Element("object", tmp_path / "cup.png", "cup"),)) for n in range(2)]
    for shade, name in enumerate(("ours", "theirs")):
        for case in cases:
            toy_bench.write(tmp_path / name / f"{case.id}.mp4", np.full((3, 16, 16, 3), 90 * shade, np.uint8))
    folders = {name: tmp_path / name for name in ("ours", "theirs")}
    return study.make(cases, folders, tmp_path / "study", seed=1, embed=True), tmp_path


CLICKS = """(turn) => {
  for (const box of document.querySelectorAll("fieldset")) {
    const radios = box.querySelectorAll("input[type=radio]");
    radios[turn++ % 7 % radios.length].click();
  }
  return turn;
}"""


def fill_in(page, turn):
    """Answer every question of every case: the answers in turn, beginning with another for each rater."""
    while True:
        turn = page.evaluate(CLICKS, turn)
        if page.locator("#next").is_disabled():
            return
        page.locator("#next").click()


def rate(browser, home, rater, start):
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.goto((home / "study/study.html").as_uri())
    page.locator("#rater").fill(rater)
    fill_in(page, start)
    page.reload()  # what was answered is still there
    assert page.locator("#count").inner_text() == "40 of 40 answers"
    assert page.locator("fieldset.open").count() == 0
    with page.expect_download() as waiting:
        page.locator("#export").click()
    waiting.value.save_as(home / f"{rater}.json")
    context.close()
    return json.loads((home / f"{rater}.json").read_text())


FORGETFUL = "Storage.prototype.getItem = () => null; Storage.prototype.setItem = () => {};"
REFUSING = (
    "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('denied', 'SecurityError'); } });"
)


@pytest.mark.parametrize("storage", [FORGETFUL, REFUSING], ids=["forgets", "refuses"])
def test_answers_outlive_a_reload_when_the_browser_loses_local_storage(browser, pages, storage):
    context = browser.new_context()
    context.add_init_script(storage)
    page = context.new_page()
    page.goto((pages[1] / "study/study.html").as_uri())
    page.locator("#rater").fill("ann")
    fill_in(page, 0)
    page.reload()
    assert page.locator("#count").inner_text() == "40 of 40 answers"
    assert page.locator("#rater").input_value() == "ann"
    context.close()


def test_a_browser_that_keeps_nothing_is_reported_on_the_page(browser, pages):
    context = browser.new_context()
    context.add_init_script(f"{REFUSING} history.replaceState = () => {{ throw new DOMException('denied'); }};")
    page = context.new_page()
    page.goto((pages[1] / "study/study.html").as_uri())
    page.locator("input[type=radio]").first.click()
    assert "export before you close the page" in page.locator("#count").inner_text()
    context.close()


def test_three_raters_fill_in_the_page_and_are_added_up_as_by_hand(browser, pages):
    key, home = pages
    said = {rater: rate(browser, home, rater, start) for start, rater in enumerate(RATERS)}
    assert [len(made["ratings"]) for made in said.values()] == [40, 40, 40]
    assert len({json.dumps(made["ratings"]) for made in said.values()}) == 3
    found = ratings.aggregate(ratings.read([home / f"{rater}.json" for rater in RATERS], key), {})["person"]
    assert found["raters"] == list(RATERS)
    for system in ("ours", "theirs"):
        for criterion in study.CRITERIA:
            by_case = []
            for case, slots in key["slots"].items():
                (slot,) = (slot for slot, name in slots.items() if name == system)
                scores = [
                    row["score"]
                    for made in said.values()
                    for row in made["ratings"]
                    if (row["case"], row["slot"], row["criterion"]) == (case, slot, criterion)
                ]
                assert len(scores) == 3
                by_case.append(sum(scores) / 3)
            assert found["means"][system][criterion]["value"] == pytest.approx(sum(by_case) / 2)
