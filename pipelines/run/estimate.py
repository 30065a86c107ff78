"""Cost of a corpus, extrapolated from some of its shards: worker hours by stage, disk, clips and triplets, with 95 % intervals.

Everything is taken as proportional to the length of the videos (a ratio estimator over the shards that were run), with intervals
by a bootstrap over shards. `retrieve` compares clips with one another, so that its hours are a lower bound for a larger corpus.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from a2data.records import Video
from a2data.stage import Stage
from a2data.store.tables import Store
from pipelines.statistics import cluster_bootstrap, percentile_interval

RESAMPLES, SEED = 2000, 0


class Total(NamedTuple):
    """An extrapolated sum with its 95 % interval; nan if there is a single shard to judge by."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Total":
        return Total(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Estimate:
    """The cost of a corpus on machines as fast as the one that ran the sample."""

    film_h: float
    """length of all videos in hours"""
    shards: int
    """shards that were run"""
    stages: dict[str, Total]
    """worker hours by stage"""
    cpu_h: Total
    """hours of CPU workers: of stages that do not request a GPU"""
    gpu_h: Total
    """hours of whole GPUs: worker hours times the fraction of a GPU that a worker requests"""
    clips: Total
    triplets: Total
    tables_gb: Total
    tars_gb: Total


def measure(store: Store, stages: Sequence[Stage], sample: Sequence[int]) -> Estimate:
    """Extrapolate from the shards of a sample to all shards. Raises ValueError if a stage of the sample is not done."""
    lengths = {
        shard: sum(video.duration_s for video in store.read("ingest", shard, Video)) for shard in store.shards("ingest")
    }
    film_s = np.array([lengths[shard] for shard in sample])
    if not film_s.sum():
        raise ValueError(
            "the sample has no video to judge by: every video of it was rejected or failed; sample more shards"
        )
    resamples = np.stack(list(cluster_bootstrap(len(sample), RESAMPLES, SEED)))

    def total(values: Sequence[float]) -> Total:
        """Extrapolate a quantity of each shard of the sample, in proportion to the length of the videos."""
        amounts = np.array(values, float)
        scale = sum(lengths.values())
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = (resamples @ amounts) / (resamples @ film_s)
        interval = percentile_interval(ratios * scale) if len(sample) > 1 else (float("nan"),) * 2
        return Total(float(amounts.sum() / film_s.sum() * scale), *interval)

    seconds = {stage.name(): [_seconds(store, stage, shard) for shard in sample] for stage in stages}
    sizes = {stage.name(): store.sizes(stage.name()) for stage in stages}
    tables = [sum(size.get(f"{shard:05d}.parquet", 0) for size in sizes.values()) for shard in sample]
    packed = [store.columns("pack", shard, ["bytes"]).column("bytes").to_pylist() for shard in sample]
    on_cpu = [stage.name() for stage in stages if not stage.gpus]
    gpus = {stage.name(): stage.gpus for stage in stages if stage.gpus}
    return Estimate(
        film_h=sum(lengths.values()) / 3600,
        shards=len(sample),
        stages={name: total(values).scaled(1 / 3600) for name, values in seconds.items()},
        cpu_h=total([sum(seconds[name][n] for name in on_cpu) / 3600 for n in range(len(sample))]),
        gpu_h=total([sum(seconds[name][n] * gpus[name] for name in gpus) / 3600 for n in range(len(sample))]),
        clips=total([_rows(store, "segment", shard) for shard in sample]),
        triplets=total([len(sizes) for sizes in packed]),
        tables_gb=total(tables).scaled(1e-9),
        tars_gb=total([sum(sizes) for sizes in packed]).scaled(1e-9),
    )


def _seconds(store: Store, stage: Stage, shard: int) -> float:
    footer = store.footer(stage.name(), shard)
    if footer is None:
        raise ValueError(f"{stage.name()} is not done for shard {shard}: see `a2data failures`")
    return footer.seconds


def _rows(store: Store, table: str, shard: int) -> int:
    footer = store.footer(table, shard)
    return footer.rows if footer else 0


def choose_sample(shards: Sequence[int], count: int) -> list[int]:
    """Return at most `count` shards, spread evenly."""
    count = min(count, len(shards))
    return [shards[round((n + 0.5) * len(shards) / count - 0.5)] for n in range(count)]


def format_lines(estimate: Estimate, cpus: int, gpus: int, cpu_price: float, gpu_price: float) -> list[str]:
    """Format an estimate for a run on `cpus` CPU workers and `gpus` GPUs at prices per hour.

    The time is that of the busier kind, if its workers never wait: a lower bound.
    """
    cpu_time, gpu_time = estimate.cpu_h.scaled(1 / cpus), estimate.gpu_h.scaled(1 / gpus)
    rows = [(name, hours, "worker h") for name, hours in estimate.stages.items()]
    rows += [("CPU workers", estimate.cpu_h, "h"), ("GPUs", estimate.gpu_h, "h")]
    rows += [(f"time on {cpus} CPU workers, {gpus} GPUs", max(cpu_time, gpu_time), "h")]
    rows += [("clips", estimate.clips, ""), ("triplets", estimate.triplets, "")]
    rows += [("tables", estimate.tables_gb, "GB"), ("shards", estimate.tars_gb, "GB")]
    if cpu_price or gpu_price:
        cost = zip(estimate.cpu_h.scaled(cpu_price), estimate.gpu_h.scaled(gpu_price), strict=True)
        rows.append(("cost", Total(*(cpu + gpu for cpu, gpu in cost)), "at these prices"))
    head = f"{estimate.film_h:.4g} h of video, extrapolated from {estimate.shards} shards; 95 % intervals"
    formatted = [head if estimate.shards > 1 else f"{head} need at least 2"]
    formatted += [
        f"{name:32} {_number(t.value):>9}  {_number(t.low):>9} to {_number(t.high):9} {unit}".rstrip()
        for name, t, unit in rows
    ]
    return formatted


def _number(value: float) -> str:
    return "?" if np.isnan(value) else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
