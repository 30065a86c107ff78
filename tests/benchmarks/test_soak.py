"""The figures of the soak come from samples of its processes."""

from benchmarks.soak import Sample, throughput


def test_the_throughput_of_a_stage_is_that_of_its_own_time():
    before = [Sample(float(s), 100, 500, {"detect": 0}) for s in range(50)]  # other stages
    made = [Sample(50.0 + 2 * n, 100, 500, {"detect": n}) for n in range(1, 6)]
    slow = [Sample(60.0 + 4 * (n - 5), 100, 500, {"detect": n}) for n in range(6, 10)]

    assert throughput([*before, *made, *slow], "detect", 20) == [10.0, 10.0, 5.0, 5.0]
