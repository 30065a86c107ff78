import base64
import json
import math
import re

import cv2
import numpy as np
import tiny_corpus
from html_page import written
from tiny_corpus import GREEN, RED

from a2data.records import Packed, Reference, Reject, Rule
from a2data.store.schema import schema
from a2data.store.tables import Store
from pipelines.report import audit
from pipelines.report.audit import Pair, select_pairs, svg_outline

REFUSED = Reject(
    f"{GREEN}/human/0",
    "ambiguous identity",
    f"{RED}/human/0: margin = 0.01, allowed 0.1 to inf: FAIL; similarity = 0.8, allowed 0.6 to 1: pass",
)


def corpus(tmp_path) -> Store:
    """The tiny corpus, in which the green person was refused."""
    store = Store(tmp_path / "work")
    tiny_corpus.write(store)
    tiny_corpus.put(store, "retrieve", 1, Reference, [], rejected=[REFUSED, Reject(f"{GREEN}/upper/0", "no identity")])
    return store


def data(page, name):
    return json.loads("".join(text for text, _ in page.inside("script", id=f"audit-{name}")))


def ints(text):
    return np.frombuffer(base64.b64decode(text), "<i4").tolist()


def test_the_page_knows_every_pair_and_the_likeliest_of_those_refused(tmp_path):
    scores = data(written(corpus(tmp_path), tmp_path), "scores")
    names = {
        end: [
            f"{scores['clips'][clip]}/{scores['tails'][tail]}"
            for clip, tail in np.array(ints(scores[end])).reshape(-1, 2)
        ]
        for end in ("target", "source")
    }
    assert names["target"] == [f"{RED}/human/0", f"{RED}/upper/0", f"{GREEN}/human/0"]
    assert names["source"] == [f"{GREEN}/human/0", f"{GREEN}/upper/0", f"{RED}/human/0"]
    assert ints(scores["accepted"]) == [1, 1, 0]
    similarity, margin = scores["rules"]
    values = np.frombuffer(base64.b64decode(similarity["values"]), "<f4")
    assert values.tolist() == [np.float32(n) for n in (0.9, 0.7, 0.8)]  # of the refused pair too, which passes
    assert (similarity["name"], similarity["limits"], similarity["rows"]) == ("similarity", [[0.6, 1.0]], "")
    assert (margin["name"], margin["limits"], ints(margin["rows"])) == ("margin", [[0.1, None]], [2])
    assert [scores["clips"][n] for n in ints(scores["triplets"])] == [RED]


def test_each_element_has_the_frame_it_was_best_seen_in_and_its_outline(tmp_path):
    pictures = data(written(corpus(tmp_path), tmp_path), "pictures")
    assert set(pictures["elements"]) == {f"{clip}/{kind}/0" for clip in (RED, GREEN) for kind in ("human", "upper")}
    assert len(pictures["frames"]) == 2  # one frame of each clip shows both its elements
    frame, width, height, label, path = pictures["elements"][f"{RED}/human/0"]
    assert (width, height, label) == (64, 48, "person")
    encoded = base64.b64decode(pictures["frames"][frame].removeprefix("data:image/jpeg;base64,"))
    shown = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(shown.astype(int) - tiny_corpus.COLOURS[RED]).max() < 12
    assert path.startswith("M")


def filled(path, size):
    """What a path of straight lines surrounds."""
    rings = [[tuple(map(int, p.split())) for p in ring.rstrip("Z").split("L")] for ring in path.split("M")[1:]]
    return cv2.fillPoly(np.zeros(size, np.uint8), [np.array(ring) for ring in rings], 1).astype(bool)


def test_an_outline_surrounds_what_the_mask_holds_and_leaves_out_its_holes():
    mask = np.zeros((60, 80), bool)
    mask[5:40, 10:50] = True
    mask[15:30, 20:40] = False
    mask[50:58, 60:75] = True
    # a hole's border is drawn on the mask's own pixels
    assert (filled(svg_outline(mask), mask.shape) != mask).mean() < 0.02
    assert svg_outline(mask).count("M") == 3
    assert svg_outline(np.zeros((4, 4), bool)) == ""


def pair(n, value, low=-math.inf, high=math.inf):
    return Pair(f"c-{n:08d}/human/0", "d/human/0", "human", True, "", 1, [Rule("r", value, low, high)], {})


def test_the_pairs_nearest_to_a_threshold_are_drawn_and_some_of_all():
    pairs = [pair(n, n / 100, 0.5) for n in range(100)]
    drawn = select_pairs(pairs, 10)
    assert drawn[:5] == [50, 49, 51, 48, 52]
    assert len(drawn) == len(set(drawn)) == 10
    assert {0, 90} & {*drawn}
    assert select_pairs(pairs[:3], 10) == [2, 1, 0]
    assert select_pairs([pair(0, 1.0), pair(1, math.inf, 0.2)], 5) == [0, 1]


def test_of_more_pairs_than_a_page_holds_both_sides_keep_their_share(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "MAX_PAIRS", 30)
    store = Store(tmp_path / "work")
    rows = [
        Reference(f"c{n:03d}", f"c{n:03d}/object/0", "object", 1, 0, "d", "d/object/0", "", 0.9, 0.1, [])
        for n in range(80)
    ]
    rejects = [Reject(f"c{n:03d}/object/1", "few", "d/object/0: margin = 0, allowed 1 to 2: FAIL") for n in range(40)]
    tiny_corpus.put(store, "retrieve", 0, Reference, rows)
    found = audit.audit(store, [], rejects, "object")
    assert (found.total, found.shown, found.pictured) == (120, 30, 0)
    assert sum(ints(json.loads(found.scores)["accepted"])) == 20


def test_parts_of_the_copy_risk_are_shown_where_they_were_measured(tmp_path):
    measured = Pair("c/human/0", "d/human/0", "human", True, "", 1, [], {"silhouette_distance": 0.25})
    scores = audit.scores([pair(0, 1.0), measured], ["human"], set(), 2)
    (part,) = scores["parts"]
    assert (part["name"], ints(part["rows"])) == ("silhouette_distance", [1])
    assert np.frombuffer(base64.b64decode(part["values"]), "<f4").tolist() == [0.25]


def test_hostile_names_cannot_end_the_block_of_data(tmp_path):
    store = corpus(tmp_path)
    evil = f"{RED}/human/</script><b>0"
    row = Reference(RED, evil, "human", 1, 1, GREEN, f"{GREEN}/human/0", "", 0.9, 0.1, [])
    tiny_corpus.put(store, "retrieve", 0, Reference, [row])
    page = written(store, tmp_path)
    assert "human/</script><b>0" in data(page, "scores")["tails"]
    assert "</script><b>" not in page.html


def test_without_any_pair_the_section_says_so(tmp_path):
    store = Store(tmp_path / "work")
    tiny_corpus.put(store, "pack", 0, Packed, [])
    assert "No pairs yet" in written(store, tmp_path).text("section", id="audit")


def test_the_components_of_a_copy_risk_are_columns_of_the_references():
    distances = [name for name in schema(Reference).names if re.search("_(distance|ratio|difference)$", name)]

    assert [*distances, "gap_s"] == list(audit.COPY_RISK_PARTS)
