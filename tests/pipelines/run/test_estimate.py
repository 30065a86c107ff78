"""Extrapolation of a run's cost from some of its shards, against corpora whose whole cost is known."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from a2data.records import Kept, Video
from a2data.store.tables import Store
from pipelines.run.estimate import choose_sample, format_lines, measure

FAST = SimpleNamespace(name=lambda: "segment", gpus=0.0)
DEEP = SimpleNamespace(name=lambda: "detect", gpus=0.25)


@dataclass(frozen=True)
class Row:
    bytes: int


def put(store: Store, table: str, shard: int, record: type, rows: list, seconds: float = 0.0) -> None:
    with store.create(table, record, shard) as part:
        part.add(rows)
        part.footer.seconds = seconds
        part.commit()


def corpus(store: Store, shards: int, noise: float) -> float:
    """Videos of various lengths; `detect` takes 3 s a second, give or take `noise`. Returns its seconds over all shards."""
    rng, whole = np.random.default_rng(shards), 0.0
    for shard in range(shards):
        length = float(rng.uniform(10, 100))
        video = Video("v", "v.mp4", "", "", "", 640, 360, 0, 25.0, length, "h264", 0)
        seconds = 3 * length * (1 + noise * rng.standard_normal())
        put(store, "ingest", shard, Video, [video])
        put(store, "segment", shard, Kept, [Kept(f"v-{n}", "v") for n in range(int(length))], length / 2)
        put(store, "detect", shard, Kept, [], seconds)
        put(store, "pack", shard, Row, [Row(1000)] * int(length))
        whole += seconds
    return whole


def test_a_cost_in_proportion_to_length_is_extrapolated_exactly(tmp_path):
    store = Store(tmp_path)
    whole = corpus(store, 20, noise=0.0)
    found = measure(store, [FAST, DEEP], choose_sample(range(20), 4))
    assert found.stages["detect"] == pytest.approx([whole / 3600] * 3)
    assert found.gpu_h == pytest.approx([whole / 3600 / 4] * 3)
    assert found.cpu_h == pytest.approx([whole / 3600 / 6] * 3)
    assert found.triplets.value == pytest.approx(
        sum(len(store.columns("pack", s, ["bytes"])) for s in range(20)), rel=0.05
    )


def test_the_interval_has_the_whole_cost_in_most_corpora(tmp_path):
    hits = 0
    for shards in range(20, 30):
        store = Store(tmp_path / str(shards))
        whole = corpus(store, shards, noise=0.3)
        _, low, high = measure(store, [DEEP], choose_sample(range(shards), 12)).stages["detect"]
        hits += low <= whole / 3600 <= high
    assert hits >= 7  # of 10, at a nominal 95 %; a bootstrap over 12 shards is a little narrow


def test_one_shard_has_no_interval_and_the_busier_kind_sets_the_time(tmp_path):
    store = Store(tmp_path)
    corpus(store, 3, noise=0.0)
    text = "\n".join(format_lines(measure(store, [FAST, DEEP], [1]), cpus=1, gpus=10, cpu_price=1.0, gpu_price=2.0))
    told = {line[:32].strip(): line[32:].split() for line in text.splitlines()[1:]}
    assert "at least 2" in text
    assert told["time on 1 CPU workers, 10 GPUs"][0] == told["CPU workers"][0]
    assert told["cost"][1:4] == ["?", "to", "?"]


def test_a_stage_that_is_not_done_is_named(tmp_path):
    store = Store(tmp_path)
    corpus(store, 2, noise=0.0)
    store.remove("detect", "00001.parquet")
    with pytest.raises(ValueError, match=r"detect .* shard 1"):
        measure(store, [DEEP], [0, 1])


def test_shards_are_chosen_evenly_and_never_twice():
    assert choose_sample(range(10), 4) == [1, 3, 6, 8]
    assert choose_sample([5, 6], 9) == [5, 6]
    assert all(len(set(choose_sample(range(n), k))) == min(n, k) for n in range(1, 20) for k in range(1, 20))
