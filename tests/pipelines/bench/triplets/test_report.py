from html_page import Page

from pipelines.bench.triplets import report

HOSTILE = "<script>alert(1)</script>"


def result(name: str) -> dict:
    figure = {"right": 9.0, "of": 10.0, "low": 0.6, "high": 0.95, "note": ""}
    return {
        "name": name,
        "tier": "c",
        "triplet_f05": 0.81,
        "precision": 0.85,
        "recall": 0.7,
        "histogram": {f"identity {HOSTILE}": 4, "span": 2},
        "substitution": {"detect": 0.05, "faces": 0.0},
        "scores": [
            figure | {"name": "recall", "value": 0.75},
            figure | {"name": "other", "value": None, "low": None, "note": f"no case {HOSTILE}"},
        ],
        "failed": [{"clip": HOSTILE, "shot": "s", "checks": [["identity", HOSTILE], ["span", "off"]]}],
        "lost": [{"shot": HOSTILE, "in": "select"}],
    }


def test_the_page_has_every_figure_and_shows_hostile_names_as_text():
    page = Page(report.to_html([result("builtin"), result(HOSTILE)]))

    assert not page.all("script")
    assert HOSTILE not in page.html
    assert page.text("h1") == "TripletBench"
    assert (
        page.text("h2")
        == f"builtin, tier c: 0.810 precision 0.850, recall 0.700 {HOSTILE}, tier c: 0.810 precision 0.850, recall 0.700"
    )
    text = page.text("section")
    for shown in (
        f"identity {HOSTILE} 4",
        "detect +0.050",
        "recall 0.750 9 of 10, 0.600 to 0.950",
        f"identity: {HOSTILE} span: off",
    ):
        assert text.count(shown) == 2
    assert "faces" not in text


def test_bars_are_as_long_as_their_share_of_the_longest():
    page = Page(report.to_html([result("builtin")]))
    assert [attrs["width"] for attrs in page.all("rect")] == ["100.000", "50.000"]


def test_the_policy_forbids_scripts_and_anything_from_outside():
    (policy,) = (attrs["content"] for attrs in Page(report.to_html([])).all("meta") if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:; style-src 'sha256-")
    assert "script-src" not in policy
    assert "unsafe" not in policy
