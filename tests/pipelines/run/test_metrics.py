"""Metrics of a run: scraped over HTTP and parsed by Prometheus' own parser; lines of JSON."""

import json
import re
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from toy import Choose, Cut, Join, Measure

from pipelines.run.local import InProcessExecutor
from pipelines.run.metrics import Metrics
from pipelines.run.progress import progress_listener
from pipelines.run.schedule import run

ROOT = Path(__file__).parents[3]
SHARDS = [0, 1, 2, 3]
BAD = [Cut(), Measure(bad="1-00000002"), Choose(most=1.0), Join()]


def scraped(metrics: Metrics) -> dict[tuple[str, str], float]:
    """(name, stage or job) -> value, as a scrape receives them."""
    address, port = metrics.server.server_address[:2]
    text = urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=10).read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, next(iter(sample.labels.values()))): sample.value for sample in samples}


def test_a_scrape_before_the_end_has_the_units_of_every_stage(store):
    metrics, seen = Metrics(store, "127.0.0.1", 0), []

    def watch(event, about):
        if event == "end":
            seen.append(scraped(metrics))
        metrics(event, about)

    run(BAD, store, SHARDS, InProcessExecutor(store), watch)
    (found,) = seen
    for stage in BAD:
        footers = [store.footer(stage.name(), shard) for shard in SHARDS]
        name = stage.name()
        assert found["a2data_units_total", name] == sum(f.num_inputs - len(f.failed) for f in footers)
        assert found["a2data_rejects_total", name] == sum(len(f.rejected) for f in footers)
        assert found["a2data_failed_units_total", name] == sum(len(f.failed) for f in footers)
        assert found["a2data_seconds_total", name] == pytest.approx(sum(f.seconds for f in footers))
    assert found["a2data_jobs_total", "cut"] == found["a2data_planned_jobs", "cut"] == 4
    assert found["a2data_running_jobs", "cut"] == 0
    with pytest.raises(OSError, match="refused"):
        scraped(metrics)


def test_the_dashboard_shows_metrics_that_there_are(store):
    metrics = Metrics(store, "127.0.0.1", 0)
    metrics.server.server_close()
    names = {name for family in metrics.registry.collect() for name in (family.name, f"{family.name}_total")}
    board = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    shown = {
        name for panel in board["panels"] for t in panel["targets"] for name in re.findall(r"a2data_\w+", t["expr"])
    }
    assert shown <= names
    assert len(shown) >= 7


def test_a_port_that_is_taken_is_named(store):
    first = Metrics(store, "127.0.0.1", 0)
    port = first.server.server_address[1]
    with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
        Metrics(store, "127.0.0.1", port)
    first("end", None)


def test_a_log_of_json_has_an_object_for_each_job(store, capsys):
    run(BAD, store, SHARDS, InProcessExecutor(store), progress_listener(store, True, SHARDS, log_json=True))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == 13
    assert {"stages": ["measure"], "shards": [3], "error": "", "done": 5, "rejected": 0, "failed": 1}.items() <= next(
        line for line in lines if line["stages"] == ["measure"] and line["shards"] == [3]
    ).items()
