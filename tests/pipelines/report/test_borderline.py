import tiny_corpus
from html_page import written
from tiny_corpus import GREEN, RED

from a2data.records import Reference, Reject
from a2data.store.tables import Store
from pipelines.report import borderline
from pipelines.run.recipe import element_tables
from pipelines.triplets import triplets

TABLES = element_tables(triplets())


def test_the_pairs_nearest_to_a_threshold_are_shown_on_either_side(tmp_path):
    store = Store(tmp_path / "work")
    tiny_corpus.write(store)
    details = {"human": 0.59, "upper": 0.2}
    rejected = [
        Reject(
            f"{GREEN}/{kind}/0", "no other clip shows it", f"{RED}/{kind}/0: similarity = {v}, allowed 0.6 to 1: FAIL"
        )
        for kind, v in details.items()
    ]
    tiny_corpus.put(store, "retrieve", 1, Reference, [], rejected=[*rejected, Reject(f"{GREEN}/face/0", "no identity")])
    (border,) = borderline.borderline_pairs(store, TABLES, [*rejected, Reject(f"{GREEN}/face/0", "no identity")])
    assert [(p.element_id, p.rule.value) for p in border.passed] == [(f"{RED}/human/0", 0.9), (f"{RED}/upper/0", 0.7)]
    assert [(p.source_element_id, p.rule.value) for p in border.failed] == [
        (f"{RED}/human/0", 0.59),
        (f"{RED}/upper/0", 0.2),
    ]
    assert [len(p.pictures) for p in (*border.passed, *border.failed)] == [2, 2, 2, 2]
    page = written(store, tmp_path)
    assert "0.59 allowed 0.6 to 1" in page.text("figure", **{"class": "refused"})
    assert "0.7 allowed 0.6 to 1" in page.text("figure", **{"class": "passed"})


def test_a_rule_whose_threshold_nothing_came_near_has_no_pairs(corpus_store):
    assert [border.rule for border in borderline.borderline_pairs(corpus_store, TABLES, [])] == ["similarity"]


def test_histograms_count_every_reference(page):
    similarity, copy_risk = (page.text("section", id="pairing").split("of 2 references, ")[n] for n in (1, 2))
    assert similarity.startswith("median 0.80")
    assert copy_risk.startswith("median 0.30")
    bars = [int(text) for text, path in page.inside("section", id="pairing") if path and path[-1][0] == "title"]
    assert sum(bars) == 4
    assert len(bars) == 48


def test_a_histogram_has_a_line_where_its_threshold_is(page):
    lines = [attrs for attrs in page.all("line") if attrs.get("class") == "limit"]
    assert [float(line["x1"]) for line in lines] == [480 * 0.6]
    assert "similarity of human, upper" in page.text("section", id="pairing")
    assert "threshold 0.60" in page.text("section", id="pairing")
