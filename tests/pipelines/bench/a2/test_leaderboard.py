import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from pipelines.bench.a2 import leaderboard, score_file
from pipelines.bench.a2.totals import METRICS, PUBLISHED, Measured


class Cells(HTMLParser):
    """The rows of all tables, as (text, data-value); and every address that a page names."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.addresses, self.inside = [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [v for k, v in attrs.items() if k in ("href", "src", "action", "data")]
        if tag == "tr":
            self.rows.append([])
        self.inside = tag == "td"
        if self.inside:
            self.rows[-1].append(["", attrs.get("data-value")])

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "td"

    def handle_data(self, data):
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1][0] += data


def ours(name="<ours>", **changes):
    table = {
        f"c{n}": {m: Measured(x.maximum * (0.3 + 0.1 * n)) for m, x in METRICS.items()} | changes for n in range(4)
    }
    return score_file.to_json(table, name, {})


def test_the_published_rows_stand_as_they_were_printed():
    rows = [row for row in Cells(leaderboard.page([])).rows if row]
    assert [row[0][0] for row in rows] == list(PUBLISHED)
    for row, (values, total) in zip(rows, PUBLISHED.values(), strict=True):
        assert row[1][0] == "as published"
        assert float(row[2][0]) == total
        assert [float(cell[0]) for cell in row[4:]] == [round(v, 3) for v in values]


def test_our_rows_have_both_variants_with_intervals_and_names_are_escaped():
    page = leaderboard.page([ours()])
    rows = Cells(page).rows[-2:]
    assert [(row[0][0], row[1][0]) for row in rows] == [("<ours>", "lenient"), ("<ours>", "strict")]
    assert "<ours>" not in page
    assert "0.450" in page
    assert "n 4" in page
    assert float(rows[0][2][1]) == pytest.approx(1.29 * 0.45, abs=1e-6)


def test_what_was_not_measured_has_a_reason_and_no_number():
    page = leaderboard.page([ours(image_quality=Measured(skipped="no MUSIQ here"))])
    row = Cells(page).rows[-1]
    assert 'title="skipped: no MUSIQ here"' in page
    assert ["skipped", ""] in row
    assert row[2] == ["skipped", ""]  # no total either


def test_the_page_names_nothing_outside_itself():
    page = leaderboard.page([ours()], {"person": {"raters": ["a"], "ratings": 0, "means": {}}})
    assert Cells(page).addresses == []
    assert "default-src 'none'" in page
    assert "://" not in page


def test_there_is_a_bar_for_every_value_and_an_outline_for_every_whole_row():
    lines = leaderboard.rows([ours("a"), ours("b", image_quality=Measured(skipped="no"))])
    # four published, ours without gaps; strict rows are not drawn
    assert len(leaderboard.radar(lines).outlines) == 5
    assert len(leaderboard.bar_plot(lines, "image_quality").bars) == 6
    assert len(leaderboard.bar_plot(lines, "id_consistency").bars) == 8


def test_a_radar_outline_is_where_its_values_are():
    (_, *_, keling, _) = leaderboard.rows([])[:4]
    (outline,) = leaderboard.radar([keling]).outlines
    x, y = map(float, outline.points.split()[0].split(","))  # the first axis points upward: ID consistency .497 of .5
    assert (x, y) == (pytest.approx(300), pytest.approx(300 - 150 * 0.994, abs=0.1))


def test_the_script_is_the_one_that_the_policy_allows_and_sorts():
    if shutil.which("node") is None:
        pytest.skip("no node to run the page's script in")
    page = leaderboard.page([])
    code = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    fake = """
    const rows = ["0.5", "", "0.9", "0.7"].map((v) => ({ children: [{ dataset: { value: v } }] }));
    const body = { rows, append: (row) => said.push(row.children[0].dataset.value) };
    let said = [], sort = null, click = null;
    const head = { closest: () => ({ tBodies: [body] }), getAttribute: () => sort, removeAttribute: () => {},
                   setAttribute: (_, v) => { sort = v; }, parentNode: null };
    head.parentNode = { children: [head] };
    const document = { querySelectorAll: () => [{ closest: () => head, addEventListener: (_, f) => { click = f; } }] };
    """
    drive = "click(); const down = said; said = []; click(); console.log(JSON.stringify([down, said]));"
    out = subprocess.run(["node", "-e", fake + code + drive], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == [["0.9", "0.7", "0.5", ""], ["0.5", "0.7", "0.9", ""]]


def test_what_other_models_measured_has_a_table_of_its_own():
    figures = {"id_consistency.dlib": Measured(0.25), "copy_paste": Measured(-0.5)}
    page = leaderboard.page([ours(**figures)])
    main, own = page.split("Metrics by other models")
    assert "id_consistency.dlib" not in main
    assert [[row[0][0], row[1][1], row[2][1]] for row in Cells(own).rows if row][:2] == [
        ["copy_paste", "-0.500000", "-0.500000"],
        ["id_consistency.dlib", "0.250000", "0.250000"],
    ]
    assert 'width="-' not in page
