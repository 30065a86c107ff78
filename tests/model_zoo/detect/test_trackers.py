import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from model_zoo import cards

pytest.importorskip("ultralytics")


def lapjv(cost, extend_cost, cost_limit):
    """lap's solver by scipy's: cost, and for each row and column its partner or -1."""
    rows, columns = linear_sum_assignment(np.minimum(cost, cost_limit + 1))
    x, y = np.full(cost.shape[0], -1), np.full(cost.shape[1], -1)
    for r, c in zip(rows, columns, strict=True):
        if cost[r, c] <= cost_limit:
            x[r], y[c] = c, r
    return 0.0, x, y


@pytest.fixture(params=["bytetrack", "botsort"])
def track(request, monkeypatch):
    if importlib.util.find_spec("lap") is None:
        monkeypatch.setitem(sys.modules, "lap", SimpleNamespace(lapjv=lapjv, __version__="0.5.13"))
    return cards.load(request.param)


def moving(*ways, frames=6):
    """Boxes of 40 x 80 px whose left upper corner is where each way says, and their scores."""
    boxes = [np.array([[x, y, x + 40, y + 80] for x, y in (way(n) for way in ways)], np.float32) for n in range(frames)]
    return boxes, [np.full(len(ways), 0.9, np.float32)] * frames


def test_two_who_walk_past_each_other_keep_their_numbers_in_whatever_order_they_come(track):
    boxes, scores = moving(lambda n: (10 + 8 * n, 10), lambda n: (200 - 8 * n, 100))
    boxes = [b[::-1] if n % 2 else b for n, b in enumerate(boxes)]
    numbers = track(boxes, scores)
    assert numbers == [numbers[0][:: -1 if n % 2 else 1] for n in range(6)]
    assert len(set(numbers[0])) == 2
    assert -1 not in numbers[0]


def test_what_comes_later_has_a_number_from_its_second_sighting_on(track):
    boxes, scores = moving(lambda n: (10, 10))
    late = np.array([[200, 100, 240, 180]], np.float32)
    numbers = track([boxes[0], *(np.vstack([b, late]) for b in boxes[1:])], [scores[0], *[np.full(2, 0.9)] * 5])
    first, second = ([here[i] if i < len(here) else None for here in numbers] for i in (0, 1))
    assert len(set(first)) == 1
    assert second[:2] == [None, -1]
    assert len(set(second[2:])) == 1
    assert second[2] not in (-1, first[0])


def test_one_who_was_hidden_for_two_samples_is_the_same_one(track):
    boxes, scores = moving(lambda n: (10, 10), frames=5)
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    numbers = track([*boxes[:2], empty[0], empty[0], boxes[4]], [*scores[:2], empty[1], empty[1], scores[4]])
    assert [len(here) for here in numbers] == [1, 1, 0, 0, 1]
    assert numbers[4] == numbers[0]


def test_each_clip_begins_again(track):
    boxes, scores = moving(lambda n: (10, 10))
    assert track(boxes, scores) == track(boxes, scores)
    assert track([], []) == []


def test_the_missing_package_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "lap", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"'bytetrack' needs the package 'lap': pip install 'a2data\[track\]'"
    ):
        cards.load("bytetrack")
