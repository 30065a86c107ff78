"""Prometheus metrics of a run: jobs, units and seconds by stage, at an HTTP port of the driver.

The driver knows the result of every job wherever it ran, so that one port serves a cluster, too. GPU utilisation is not counted
here: Ray's own metrics agent reports it for each node (`ray_node_gpus_utilization`).
"""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from a2data.store.tables import Store
from pipelines.run.schedule import Group, JobResult, jobs

JOB = "stages of the job, joined by +"


class Metrics:
    """Listener of `schedule.run` that counts what its events report."""

    def __init__(self, store: Store, address: str, port: int):
        """Serve the metrics at http://address:port/metrics; port 0 chooses a free one. Raises OSError."""
        self.store, self.registry = store, CollectorRegistry()

        def counter(name: str, text: str, label: str = "stage") -> Counter:
            return Counter(name, text, [label], namespace="a2data", registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["job"], namespace="a2data", registry=self.registry)

        self.units = counter("units", "Units (videos, clips) that a stage was run on and that did not fail")
        self.rejects = counter("rejects", "Rejects by stage")
        self.failed_units = counter("failed_units", "Units that failed")
        self.seconds = counter("seconds", "Wall time of a stage in its workers, in seconds")
        self.jobs = counter("jobs", f"Jobs that ended without an error; {JOB}", "job")
        self.failed_jobs = counter(
            "failed_jobs", f"Jobs that ended with an error or the death of a worker; {JOB}", "job"
        )
        self.running = gauge("running_jobs", f"Jobs in flight; {JOB}")
        self.total = gauge("planned_jobs", f"Jobs of the run, including those that need not run; {JOB}")
        self.fresh = gauge("fresh_jobs", f"Jobs that need not run; {JOB}")
        try:
            self.server, self.thread = start_http_server(port, address, self.registry)
        except OSError as error:
            raise OSError(f"metrics cannot be served at {address}:{port}: {error.strerror or error}") from error

    def __call__(self, event: str, payload: Any) -> None:
        """Count an event of `schedule.run`."""
        if event == "begin":
            for group in payload.groups:
                self.total.labels(_name(group)).set(len(jobs(group, payload.shards)))
        elif event == "fresh":
            group, fresh = payload
            self.fresh.labels(_name(group)).inc(len(fresh))
        elif event == "start":
            self.running.labels(_name(payload[0])).inc()
        elif event == "made":
            self._count_result(*payload)
        elif event == "end":
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()

    def _count_result(self, todo: Group, result: JobResult) -> None:
        self.running.labels(_name(result.group)).dec()
        if result.error or result.worker_error:
            self.failed_jobs.labels(_name(result.group)).inc()
            return
        self.jobs.labels(_name(result.group)).inc()
        for stage in todo:
            for shard in result.job:
                footer = self.store.footer(stage.name(), shard)
                if footer is not None:
                    self.units.labels(stage.name()).inc(footer.num_inputs - len(footer.failed))
                    self.rejects.labels(stage.name()).inc(len(footer.rejected))
                    self.failed_units.labels(stage.name()).inc(len(footer.failed))
                    self.seconds.labels(stage.name()).inc(footer.seconds)


def _name(group: Group) -> str:
    return "+".join(stage.name() for stage in group)
