"""The audit in a real browser, offline: what it counts, shows and says."""

import math

import numpy as np
import pytest
import tiny_corpus
from tiny_corpus import GREEN, RED

from a2data.records import Packed, Reference, Reject, Rule
from a2data.store.tables import Store
from pipelines.report.page import write_report
from pipelines.triplets import triplets

CLIPS = [f"{n // 3:016x}-{75 * (n % 3):08d}" for n in range(30)]


def drawn_pairs():
    """Sixty pairs of thirty clips with scores at random, every third of a kind that makes no triplet."""
    rng = np.random.default_rng(0)
    for n, clip in enumerate(CLIPS):
        for number, kind in enumerate(("human", "face" if n % 3 else "object")):
            similarity, risk = rng.uniform(0.6, 1), rng.uniform(0, 0.9)
            rules = [
                Rule("similarity", similarity, 0.6, math.inf),
                Rule("overlap_s", -math.inf, -math.inf, 0.0),
                Rule("copy_risk", risk, -math.inf, 0.95),
                Rule("outfit", 0.5, -math.inf, math.inf),
            ]
            other = CLIPS[(n + 7) % 30]
            if n % 5 or number:  # every fifth has no reference for its person
                yield Reference(
                    clip, f"{clip}/{kind}/0", kind, n, 2, other, f"{other}/{kind}/0", "", similarity, risk, rules
                )


REFERENCES = list(drawn_pairs())
REJECTS = [
    Reject(
        f"{clip}/human/0",
        "no other clip shows it",
        f"{CLIPS[1]}/human/0: similarity = {0.4 + n / 100}, allowed 0.6 to inf: FAIL",
    )
    for n, clip in enumerate(CLIPS[::5])
]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The report on the tiny corpus, with the drawn pairs beside its own."""
    folder = tmp_path_factory.mktemp("audit")
    store = Store(folder / "work")
    tiny_corpus.write(store)
    tiny_corpus.put(store, "retrieve", 2, Reference, REFERENCES, rejected=REJECTS)
    packed = [Packed(clip, "00002-000.tar", "", 0, 1, [], 6, 48, 64, 15.0, [], "", 0.0) for clip in CLIPS]
    tiny_corpus.put(store, "pack", 2, Packed, packed)
    write_report(store, folder / "report.html", triplets())
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(browser, html):
    page = browser.new_page(viewport={"width": 1300, "height": 900}, color_scheme="dark")
    page.set_default_timeout(60_000)
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    page.goto(html)
    page.wait_for_selector("#audit-app:not([hidden])")
    yield page
    page.close()
    assert said == []  # no error, nothing that the policy forbids, nothing from outside


def number(page, name):
    return int(page.locator(f"#audit-{name}").inner_text().replace(",", ""))


def left(similarity=0.6, risk=0.95):
    """Accepted pairs, elements with a reference and triplets under these thresholds, the tiny corpus's own two pairs included."""
    kept = [r for r in REFERENCES if r.similarity >= similarity and r.copy_risk <= risk]
    own = [value for value in (0.9, 0.7) if value >= similarity]
    triplets = {r.clip_id for r in kept if r.kind in ("human", "object", "face")} | (
        {RED} if similarity <= 0.9 else set()
    )
    return len(kept) + len(own), len({r.element_id for r in kept}) + len(own), len(triplets)


def counted(page):
    return number(page, "pairs"), number(page, "references"), number(page, "triplets")


def set_to(page, rule, value, which=0):
    """Move a slider as a hand does, to that value."""
    slider = page.locator(f"input[type=range][data-rule={rule}]").nth(which)
    slider.evaluate("(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", str(value))


def test_a_slider_counts_again_from_the_stored_scores(page):
    assert counted(page) == left()
    assert number(page, "back") == 0
    sliders = page.locator("input[type=range][data-rule=similarity]")
    # 0.6 to 1 of the tiny corpus is a rule with two ends, 0.6 to infinity of the others with one
    assert sliders.count() == 3
    for similarity in (0.7, 0.85, 0.95):
        for which in range(3):
            if which != 1:  # the upper end
                set_to(page, "similarity", similarity, which)
        assert counted(page) == left(similarity)
    set_to(page, "copy_risk", 0.4)
    assert counted(page) == left(0.95, 0.4)
    page.click("#audit-reset")
    assert counted(page) == left()


def test_a_lower_threshold_names_who_would_no_longer_be_refused_by_it(page):
    page.fill("input[type=number][aria-label^='similarity at least'] >> nth=1", "0.415")
    assert number(page, "back") == 4  # 0.42, 0.43, 0.44, 0.45 of six
    assert counted(page) == left()
    page.select_option("#audit-which", "changed")
    assert page.locator("#audit-list option").count() == 4
    assert page.locator("#audit-list option").first.inner_text().startswith("+")


def test_a_pair_shows_both_frames_both_outlines_and_every_rule(page):
    page.fill("#audit-search", f"{RED}/human/0")
    page.select_option("#audit-which", "accepted")
    assert page.locator("#audit-list option").count() == 1
    for end, element in (("target", f"{RED}/human/0"), ("source", f"{GREEN}/human/0")):
        figure = page.locator(f"#audit-{end}")
        assert element in figure.inner_text()
        assert figure.locator("svg image").get_attribute("href").startswith("data:image/jpeg;base64,")
        assert figure.locator("svg").bounding_box()["width"] > 100
        box = figure.locator("path.outline:not(.under)").evaluate(
            "p => { const b = p.getBBox(); return [b.x, b.y, b.width, b.height]; }"
        )
        np.testing.assert_allclose(box, [18, 10, 28, 28], atol=1)  # a disc of 15 pixels about (32, 24)
    rows = page.locator("#audit-rules tr").all_inner_texts()
    assert [row.split() for row in rows] == [["similarity", "0.9", "0.6", "to", "1", "pass"]]


def test_every_rule_of_a_pair_stands_with_its_value_and_what_is_allowed(page):
    wanted = REFERENCES[3]
    page.fill("#audit-search", wanted.element_id)
    page.select_option("#audit-kind", wanted.kind)
    page.select_option("#audit-which", "accepted")
    page.locator("#audit-list").select_option(index=0)
    similarity, overlap, risk, outfit = page.locator("#audit-rules tr").all_inner_texts()
    assert similarity.split() == ["similarity", f"{wanted.similarity:.4g}", "at", "least", "0.6", "pass"]
    assert overlap.split() == ["overlap", "(s)", "\u2212∞", "at", "most", "0", "pass"]
    assert risk.split() == ["copy", "risk", f"{wanted.copy_risk:.4g}", "at", "most", "0.95", "pass"]
    assert outfit.split() == ["outfit", "0.5", "recorded", "only"]
    assert "not in this page" in page.locator("#audit-target").inner_text()


def test_keys_walk_through_the_list_and_move_a_threshold(page):
    page.locator("#audit-list").focus()
    first = page.locator("#audit-verdict").inner_text(), page.locator("#audit-target").inner_text()
    page.keyboard.press("ArrowDown")
    assert (page.locator("#audit-verdict").inner_text(), page.locator("#audit-target").inner_text()) != first
    page.click("#audit-previous")
    assert (page.locator("#audit-verdict").inner_text(), page.locator("#audit-target").inner_text()) == first
    page.locator("input[type=range][data-rule=copy_risk]").focus()
    page.keyboard.press("Home")
    assert counted(page)[0] == 2  # those of the tiny corpus have no such rule
    page.keyboard.press("End")
    assert counted(page) == left()


def test_every_control_has_a_name(page):
    unnamed = page.eval_on_selector_all(
        "#audit input, #audit select, #audit button",
        "all => all.filter(c => !(c.labels?.length || c.ariaLabel || c.textContent.trim())).map(c => c.outerHTML)",
    )
    assert unnamed == []


def test_the_order_puts_first_what_is_nearest_to_a_threshold(page):
    page.select_option("#audit-order", "near")
    page.select_option("#audit-which", "accepted")
    page.select_option("#audit-kind", "human")
    near = min((min(r.similarity - 0.6, 0.95 - r.copy_risk), r.element_id) for r in REFERENCES if r.kind == "human")[1]
    page.locator("#audit-list").select_option(index=0)
    assert near in page.locator("#audit-target").inner_text()


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1400, "dark")])
def test_the_page_fits_its_window_and_axe_finds_nothing_serious(browser, html, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(html)
    found = pytest.importorskip("axe_playwright_python.sync_playwright").Axe().run(page).response["violations"]

    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
    page.close()
