"""Read throughput on packed tars: a2data.dataset.loader against webdataset, torchdata's StatefulDataLoader and litdata.

    python -m benchmarks.loader [--samples 400] [--passes 15] [--workers 0 1 2]

Every line comes from its own process, which alternates between sequential reading of the tars and the measured loader: all
members as bytes, not decoded. The ratio is the median over these pairs. The tars are in the page cache, so the overhead of the
loader counts. Sequential reading fills eight page-aligned buffers of the size of a sample in turn, because a batch of eight must
be held. Without workers CPU time is measured, so that other processes matter little. Then follow the first batch from the start
and from the middle, and an index of a million rows. litdata does not read tars: the samples are first written to its own chunks,
and the time is printed; if litdata is not installed, it is skipped. webdataset gives whole tars to workers; with fewer tars than
workers it is skipped.
"""

import argparse
import functools
import itertools
import json
import mmap
import operator
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from a2data.dataset import writer
from a2data.dataset.triplet import NO_PICTURE, SLOTS
from a2data.records import Packed
from a2data.store.folder import Folder
from a2data.store.schema import schema

BATCH, MILLION, BLOCK = 8, 1_000_000, 1_758_720


def write(folder: Path, count: int) -> None:
    """Write samples of 1.75 MB with the members of the format: a film of 1.5 MB, two references of 60 KB, cut out too, text."""
    rng = np.random.default_rng(0)
    slots = {f"ref{n}.png": 60_000 if n < 2 else len(NO_PICTURE) for n in range(SLOTS)}
    sizes = {"json": 10_000, "mp4": 1_500_000, "bg.png": len(NO_PICTURE), "cutouts.zip": 120_000, **slots}
    made = ((f"clip-{n:06d}", {name: rng.bytes(size) for name, size in sizes.items()}) for n in range(count))
    put(folder, made, (81, 480, 832))


def put(folder: Path, samples: Iterator[tuple[str, dict[str, bytes]]], shape: tuple[int, int, int]) -> None:
    placed = writer.write(samples, Folder(folder), 0, 128 << 20)
    writer.finish(Folder(folder), [Packed(*p, *shape, 15.0, ["human"], "CC0", 0.1) for p in placed], {})


def write_million(folder: Path) -> None:
    """Write an index of a million rows, and a thousand sparse tars."""
    rng, tars = np.random.default_rng(0), [f"{n:05d}-000.tar" for n in range(1000)]
    tar = pa.array(np.arange(MILLION) // 1000)
    shapes = np.array([(81, 720, 1280), (60, 720, 1280), (81, 1280, 720), (45, 480, 854)])[rng.integers(0, 4, MILLION)]
    roles = pa.array([["human", "upper"], ["object"], ["human", "object", "background"]])
    table = pa.table(
        {
            "clip_id": pa.array([f"{n * 2654435761 % (1 << 64):016x}-{n % 4096:08d}" for n in range(MILLION)]),
            "shard": pa.array(tars).take(tar),
            "shard_sha256": pa.array([f"{n:064x}" for n in range(1000)]).take(tar),
            "offset": np.arange(MILLION) % 1000 * 2_000_384,
            "bytes": np.full(MILLION, 2_000_384),
            "members": pa.array([["json", "mp4", "ref0.png"]]).take(pa.array(np.zeros(MILLION, np.int64))),
            **{name: shapes[:, n] for n, name in enumerate(["frames", "height", "width"])},
            "fps": np.full(MILLION, 15.0),
            "roles": roles.take(pa.array(rng.integers(0, 3, MILLION))),
            "license": pa.array(["CC0"]).take(pa.array(np.zeros(MILLION, np.int64))),
            "copy_risk": rng.random(MILLION) * 0.3,
            "split": pa.array([""]).take(pa.array(np.zeros(MILLION, np.int64))),
            "component": pa.array([f"{n:016x}" for n in range(1000)]).take(tar),
        }
    )
    folder.mkdir()
    pq.write_table(table.select([field.name for field in schema(Packed)]), folder / "index.parquet", compression="zstd")
    for name in tars:
        with open(folder / name, "wb") as file:
            file.truncate(1000 * 2_000_384 + 1024)


# -- the loaders: folder, workers, first sample -> endless samples (extension -> bytes) ----------------------------------


def a2data(folder: Path, workers: int, first: int) -> Iterator[Any]:
    from a2data.dataset.loader import Bucket, Loader

    loader = Loader(
        folder, seed=0, global_batch_size=BATCH, num_workers=workers, buckets=[Bucket(81, 480, 832)], view="bytes"
    )
    loader.load_state_dict({"epoch": 0, "batch": first // BATCH, "plan": loader.plan.digest})
    return (sample.members for samples in loader for sample in samples)


def tars_of(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.tar"))]


def webdataset(folder: Path, workers: int, first: int) -> Iterator[Any]:
    """Iterate over webdataset. It does not have a state, so earlier samples are read and dropped."""
    import webdataset
    from torch.utils.data import DataLoader

    data = webdataset.WebDataset(tars_of(folder), shardshuffle=False).repeat()
    return itertools.islice(iter(DataLoader(data, batch_size=None, num_workers=workers)), first, None)


def stateful(folder: Path, workers: int, first: int) -> Iterator[Any]:
    """Iterate over torchdata's StatefulDataLoader with webdataset, which is stateless and therefore read again up to `first`."""
    import webdataset
    from torchdata.stateful_dataloader import StatefulDataLoader

    data = webdataset.WebDataset(tars_of(folder), shardshuffle=False).repeat()
    return iter(resumed(lambda: StatefulDataLoader(data, batch_size=None, num_workers=workers), first))


def resumed(make: Callable[[], Any], first: int) -> Any:
    """Return a loader that resumes after `first` samples of another one. The clock starts after the state is restored."""
    loader = make()
    if first:
        begun = iter(loader)
        for _ in range(first):
            next(begun)
        state = loader.state_dict()
        del begun
        loader = make()
        loader.load_state_dict(state)
        CLOCK["began"] = time.perf_counter()
    return loader


def written_for_litdata(sample: tuple[str, str]) -> dict[str, bytes]:
    """Return a sample, by tar and key, in litdata's form."""
    tar, key = sample
    with tarfile.open(tar) as file:
        members = [m for m in file if m.name.partition(".")[0] == key]
        return {m.name.partition(".")[2]: file.extractfile(m).read() for m in members}  # type: ignore[union-attr]


def write_for_litdata(folder: Path) -> None:
    """Write the data set to folder/litdata in litdata's chunks of 128 MB."""
    import litdata

    index = pq.read_table(folder / "index.parquet", columns=["shard", "clip_id"])
    samples = [(str(folder / row["shard"]), row["clip_id"]) for row in index.to_pylist()]
    litdata.optimize(
        written_for_litdata, samples, output_dir=str(folder / "litdata"), chunk_bytes="128MB", num_workers=1
    )


def litdata(folder: Path, workers: int, first: int) -> Iterator[Any]:
    """Iterate over litdata's loader, which resumes from a state."""
    from litdata import StreamingDataLoader, StreamingDataset

    data = StreamingDataset(str(folder / "litdata"), shuffle=True, drop_last=False)
    how: dict[str, Any] = {"batch_size": 1, "num_workers": workers, "collate_fn": operator.itemgetter(0)}
    loader = resumed(lambda: StreamingDataLoader(data, **how), first)
    return itertools.chain.from_iterable(itertools.repeat(loader))


LOADERS: dict[str, Callable[[Path, int, int], Iterator[Any]]] = {
    "a2data": a2data,
    "webdataset": webdataset,
    "stateful": stateful,
    "litdata": litdata,
}
BY_TAR = {"webdataset", "stateful"}  # give each worker whole tars
CLOCK: dict[str, float] = {}


def size(sample: Any) -> int:
    return sum(len(data) for data in sample.values() if not isinstance(data, str))


# -- measurements, each in its own process --------------------------------------------------------------------------------


@functools.cache
def buffers() -> list[mmap.mmap]:
    """Return page-aligned buffers for a batch, allocated once, because the first write to a page is slower."""
    return [mmap.mmap(-1, BLOCK) for _ in range(BATCH)]


def plain(folder: Path, clock: Callable[[], float]) -> float:
    """Return bytes per second of reading the tars sequentially, into eight buffers in turn."""
    memory, total, began = buffers(), 0, clock()
    for tar in tars_of(folder):
        with open(tar, "rb", buffering=0) as file:
            for buffer in itertools.cycle(memory):
                count = file.readinto(buffer)
                total += count
                if not count:
                    break
    return total / (clock() - began)


def speed(name: str, folder: Path, workers: int, count: int, passes: int) -> dict[str, float]:
    """Return samples/s, the ratio to sequential reading (medians over the passes), and memory growth after the first sample."""
    clock = time.perf_counter if workers else time.process_time
    samples = LOADERS[name](folder, workers, 0)
    next(samples)
    plain(folder, clock)  # warm-up of the buffers
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rates, shares = list[float](), list[float]()
    for _ in range(passes):
        reading = plain(folder, clock)
        began = clock()
        total = sum(size(sample) for sample in itertools.islice(samples, count))
        took = clock() - began
        rates.append(count / took)
        shares.append(total / took / reading)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
    low, share, high = (float(q) for q in np.quantile(shares, (0.1, 0.5, 0.9)))
    return {"rate": float(np.median(rates)), "low": low, "share": share, "high": high, "mb": grown / 1024}


def first_batch(name: str, folder: Path, workers: int, first: int) -> dict[str, float]:
    """Return the seconds from the constructor to the first batch, from any position; modules are imported before."""
    import torchdata.stateful_dataloader  # noqa: F401
    import webdataset  # noqa: F401

    import a2data.dataset.loader  # noqa: F401

    CLOCK["began"] = time.perf_counter()
    samples = LOADERS[name](folder, workers, first)
    got = list(itertools.islice(samples, BATCH))
    return {"seconds": time.perf_counter() - CLOCK["began"], "samples": len(got)}


def start(folder: Path) -> dict[str, float]:
    """Return seconds, CPU seconds and MB for opening an index of a million rows and planning the first epoch."""
    from a2data.dataset.loader import Loader, standard_buckets

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    loader = Loader(folder, seed=0, global_batch_size=256, buckets=standard_buckets(), view="bytes")
    opened = time.perf_counter() - began
    next(loader.plan.batches())
    planned, used = time.perf_counter() - began, time.process_time() - cpu
    loader.load_state_dict({"epoch": 40, "batch": 77, "plan": loader.plan.digest})
    began = time.perf_counter()
    next(loader.plan.batches(loader.step))
    resumed = time.perf_counter() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
    return {"opened": opened, "planned": planned, "cpu": used, "resumed": resumed, "mb": grown / 1024}


def alone(*arguments: Any) -> dict[str, float]:
    """Run one of the functions above in its own process."""
    command = [sys.executable, "-m", "benchmarks.loader", "--one", json.dumps([str(a) for a in arguments])]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def one(what: str, *rest: str) -> dict[str, float]:
    if what == "speed":
        return speed(rest[0], Path(rest[1]), int(rest[2]), int(rest[3]), int(rest[4]))
    if what == "first":
        return first_batch(rest[0], Path(rest[1]), int(rest[2]), int(rest[3]))
    return start(Path(rest[0]))


def compared() -> list[str]:
    """Return the loaders to measure. litdata is optional: it depends on boto3, which is not needed otherwise."""
    return [name for name in LOADERS if name != "litdata" or find_spec("litdata")]


def compare(folder: Path, names: list[str], count: int, passes: int, worker_counts: list[int]) -> None:
    print(
        f"{count} samples of 1.75 MB in the page cache, all members as bytes, medians of {passes} pairs (10 % to 90 %)"
    )
    tars = len(tars_of(folder))
    for workers, name in itertools.product(worker_counts, names):
        if name in BY_TAR and workers > tars:
            print(
                f"{name}, {workers} workers: skipped, it needs a tar for each worker and there are {tars}", flush=True
            )
            continue
        found = alone("speed", name, folder, workers, count, passes)
        order = "shuffled over all" if name in ("a2data", "litdata") else "in order of the tars"
        unit = "s" if workers else "CPU s"
        print(
            f"{name}, {workers} workers, {order}: {found['rate']:.0f} samples/{unit}, {found['share']:.2f} of sequential reading "
            f"({found['low']:.2f} to {found['high']:.2f}), {found['mb']:.0f} MB",
            flush=True,
        )
    for name, first in itertools.product(names, (0, count // 2 // BATCH * BATCH)):
        if name in BY_TAR and tars < 2:
            continue
        found = [alone("first", name, folder, 2, first)["seconds"] for _ in range(2)]
        print(f"{name}, 2 workers: first batch of {BATCH} from sample {first} after {min(found):.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--passes", type=int, default=15)
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 1, 2], help="numbers of worker processes (default: 0 1 2)"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(*json.loads(args.one))))
        return
    with tempfile.TemporaryDirectory() as root:
        write(Path(root, "data"), args.samples)
        names, began = compared(), time.perf_counter()
        if "litdata" in names:
            write_for_litdata(Path(root, "data"))
            print(f"converted for litdata in {time.perf_counter() - began:.1f} s", flush=True)
        else:
            print("litdata: skipped, it is not installed (pip install litdata)", flush=True)
        compare(Path(root, "data"), names, args.samples, args.passes, args.workers)
        write_million(Path(root, "million"))
        found = [alone("start", Path(root, "million")) for _ in range(3)]
        best = min(found, key=lambda f: f["planned"])
        print(
            f"an index of {MILLION} rows: opened in {best['opened']:.2f} s, first epoch planned after {best['planned']:.2f} s "
            f"({best['cpu']:.2f} s of CPU), another epoch's middle in {best['resumed']:.2f} s, {best['mb']:.0f} MB"
        )


if __name__ == "__main__":
    main()
