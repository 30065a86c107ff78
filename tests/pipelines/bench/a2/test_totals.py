import math
import random
import statistics

import numpy as np
import pytest

from pipelines.bench.a2.totals import (
    METRICS,
    PUBLISHED,
    WEIGHTS,
    Measured,
    comprehensive,
    detection,
    published,
    summary,
)


def table(cases=6, **changes):
    """case -> all eight metrics, each a little different from case to case."""
    rows = {}
    for n in range(cases):
        row = {name: Measured(metric.maximum * (0.2 + 0.1 * n)) for name, metric in METRICS.items()}
        rows[f"case{n}"] = row | {name: change(n) for name, change in changes.items()}
    return rows


@pytest.mark.parametrize(
    ("system", "total"), [("Pika 2.1", 0.807), ("Vidu 2.1", 0.821), ("Keling 1.6", 0.826), ("SkyReels-A2", 0.818)]
)
def test_the_fit_gives_the_four_printed_totals(system, total):
    assert round(comprehensive(published(system)), 3) == total == PUBLISHED[system][1]


def test_no_other_weights_in_hundredths_give_the_printed_totals():
    parts = [[np.mean(row[:3]), np.mean(row[3:7]), row[7] / 100] for row, _ in PUBLISHED.values()]
    printed = [total for _, total in PUBLISHED.values()]
    hundredths = np.stack(np.meshgrid(*[np.arange(101) / 100] * 3, indexing="ij"), -1).reshape(-1, 3)
    fitting = (np.abs(hundredths @ np.array(parts).T - printed) <= 5e-4).all(1)
    assert hundredths[fitting].tolist() == [list(WEIGHTS["paper-fit"].values())]


def test_the_bounded_total_keeps_the_ranking_and_its_bounds():
    totals = {name: comprehensive(published(name), "normalised") for name in PUBLISHED}
    assert sorted(totals, key=totals.get) == sorted(PUBLISHED, key=lambda name: PUBLISHED[name][1])
    assert [round(v, 3) for v in totals.values()] == [0.793, 0.808, 0.813, 0.804]
    assert sum(WEIGHTS["normalised"].values()) == pytest.approx(1)
    assert comprehensive({m: metric.maximum for m, metric in METRICS.items()}, "normalised") == pytest.approx(1)
    assert comprehensive(dict.fromkeys(METRICS, 0.0), "normalised") == 0


def test_a_total_of_seven_metrics_is_none():
    with pytest.raises(KeyError):
        comprehensive({m: 0.5 for m in METRICS if m != "image_quality"})


def test_means_and_totals_are_those_of_a_hand_computation():
    figures = summary(table(), "lenient")
    mean = statistics.mean([0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert figures["object_consistency"].value == pytest.approx(mean)
    assert figures["object_consistency"].n == 6
    assert figures["paper-fit"].value == pytest.approx((0.58 + 0.50 + 0.21) * mean)
    assert figures["visual"].value == figures["prompt"].value == pytest.approx(mean)


def test_what_was_not_found_is_left_out_or_counts_as_nothing():
    faces = {"case0": Measured(0.6, 10, 32), "case1": Measured(0.4, 32, 32), "case2": Measured(None, 0, 32)}
    rows = {case: {"id_consistency": m} for case, m in faces.items()}
    lenient, strict = (summary(rows, v)["id_consistency"] for v in ("lenient", "strict"))
    assert (lenient.value, lenient.n) == (pytest.approx(0.5), 2)
    assert (strict.value, strict.n) == (pytest.approx((0.6 * 10 / 32 + 0.4 + 0) / 3), 3)
    assert detection(rows) == {"id_consistency": (42, 96)}


def test_a_video_that_is_not_there_is_zero_in_the_strict_variant_only():
    gone = Measured(None, 0, 0)
    rows = {"a": {"dynamic_degree": Measured(1.0)}, "b": {"dynamic_degree": gone}}
    assert summary(rows, "lenient")["dynamic_degree"].value == 1.0
    assert summary(rows, "strict")["dynamic_degree"].value == 0.5


def test_what_was_skipped_has_no_number_in_either_variant_and_no_total():
    rows = table(image_quality=lambda n: Measured(skipped="MUSIQ is not installed"))
    for variant in ("lenient", "strict"):
        figures = summary(rows, variant)
        assert figures["image_quality"].value is None
        assert figures["image_quality"].note == "skipped: MUSIQ is not installed"
        assert figures["visual"].value is None
        assert figures["paper-fit"].value is None
        # 0.45 in everything else: the eighth of a quarter of the visual half may add 0 to 0.125
        least = 0.58 * 0.45 + 0.50 * 0.45 * 3 / 4 + 0.21 * 0.45
        assert f"between {least:.3f} and {least + 0.125:.3f}" in figures["paper-fit"].note
        assert figures["paper-fit"].note.startswith("no total without image_quality; between ")


def test_a_case_without_an_object_lowers_n_alone():
    rows = table(object_consistency=lambda n: Measured(skipped="no object") if n == 0 else Measured(0.5))
    for variant in ("lenient", "strict"):
        figure = summary(rows, variant)["object_consistency"]
        assert (figure.value, figure.n) == (0.5, 5)


def test_a_metric_by_another_name_enters_no_total():
    rows = table()
    more = {case: row | {"id_consistency.dlib": Measured(0.99)} for case, row in rows.items()}
    figures = summary(more, "lenient")
    assert figures["id_consistency.dlib"].value == pytest.approx(0.99)
    assert figures["paper-fit"] == summary(rows, "lenient")["paper-fit"]


def test_the_interval_is_that_of_a_bootstrap_done_another_way():
    figure = summary(table(20), "lenient")["id_consistency"]
    values, draw = [0.2 + 0.1 * n for n in range(20)], random.Random(5)
    means = sorted(statistics.mean(draw.choices(values, k=20)) for _ in range(4000))
    assert figure.low == pytest.approx(means[100], abs=0.03)
    assert figure.high == pytest.approx(means[3899], abs=0.03)
    assert figure.low == pytest.approx(figure.value - 1.96 * statistics.pstdev(values) / math.sqrt(20), abs=0.03)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    rows = {f"case{n}": {"image_quality": Measured(abs(math.sin(n)))} for n in range(12)}
    first, again, other = (summary(rows, "strict", seed)["image_quality"] for seed in (1, 1, 2))
    assert first == again
    assert first.value == other.value
    assert first.low != other.low


def test_a_total_moves_with_its_metrics_as_one():
    """Cases are drawn whole: where all metrics of a case rise together, the total is as uncertain as one of them."""
    figures = summary(table(20), "lenient")
    one, total = figures["id_consistency"], figures["paper-fit"]
    assert total.high - total.low == pytest.approx(1.29 * (one.high - one.low))


def test_no_cases_give_no_numbers():
    figures = summary({}, "lenient")
    assert all(figure.value is None for figure in figures.values())
