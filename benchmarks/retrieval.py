"""Speed, recall and memory of the neighbour search.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval [join] [index] [clusters] [scans] [costs] [hubs]

Embeddings are synthetic: each of `people` directions, uniform on the sphere, has `takes` takes, the direction plus Gaussian noise
of length 0.75, so that two takes of one person have a cosine of 0.64, and two people about 0. Rows are shuffled. Every ratio is
from one run on one machine. The table of costs is computed, not measured. hubs takes about 20 minutes and only runs on request;
see benchmarks/hubs.py.
"""

import os
import resource
import shutil
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data.records import Kept, Reference, Rule
from a2data.store.tables import Store
from benchmarks import hubs
from stages.retrieve import clusters as identity
from stages.retrieve import join as join_module
from stages.retrieve import nearest as similarity
from stages.retrieve.candidates import TARGETS_PER_WAVE

D, K = 512, 10
COLUMNS_BYTES = 940  # measured, at the peak: benchmarks.pairing large 1000000 64 0.01
GPU_FLOPS = 0.5 * 67e12  # half of an H100's float32 without TF32, by its data sheet


def draw(people: int, takes: int, d: int = D, noise: float = 0.75) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors, (people * takes, d) float32, and the person of each."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((people, d), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    who = rng.permutation(np.repeat(np.arange(people), takes))
    x = centres[who] + rng.standard_normal((len(who), d), np.float32) * np.float32(noise / d**0.5)
    return x / np.linalg.norm(x, axis=1, keepdims=True), who


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """Return the lowest CPU time of some runs, which other processes affect least."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)


def naive(x: np.ndarray, k: int, rows: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Return what similarity.top_k returns, by ranking all rows."""
    codes = np.empty((len(x), k), np.int64)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        every = join_module.encode(x[part] @ x.T, np.arange(len(x)))
        every[np.arange(len(every)), np.arange(start, start + len(every))] = join_module.NONE
        codes[part] = np.sort(np.partition(every, -k, axis=1)[:, -k:], axis=1)[:, ::-1]
    return join_module.decode(codes)


def join() -> None:
    """Compare the exact join with bare matrix products of its tiles, and with a full ranking."""
    x, _ = draw(820, 20)
    n, block = 16384, join_module.BLOCK
    x, each = x[:n], np.arange(n)
    room = np.empty((block, block), np.float32)

    def products() -> None:
        for i in range(0, n, block):
            for j in range(0, n, block):
                np.matmul(x[i : i + block], x[j : j + block].T, out=room)

    gemm, whole = [], []
    for _ in range(4):  # alternating, because other processes slow both
        gemm.append(seconds(products, 1))
        whole.append(seconds(lambda: similarity.top_k(x, x, 64, each, each), 1))
    flop, ratio = 2 * n * n * D, min(gemm) / min(whole)
    print(f"exact join of {n} x {D}, 64 neighbours: {flop / min(whole) / 1e9:.0f} GFLOP/s of CPU time; ", end="")
    print(f"its matrix products alone {flop / min(gemm) / 1e9:.0f}: {ratio:.2f} (target: at least 0.7)")
    few = slice(0, 6000)
    found = join_module.decode(join_module.join(x[few], x[few], K, each[few], each[few], block))
    expected = naive(x[few], K)
    recall = np.mean([len({*a} & {*b}) / K for a, b in zip(found[1].tolist(), expected[1].tolist(), strict=True)])
    off = np.abs(found[0] - expected[0]).max()
    print(f"  recall@{K} against a full ranking, 6000 x {D}: {recall:.4f}; similarities differ by at most {off:.5f}")
    for size in (4096, 16384):
        peak = traced(lambda: join_module.join(x[:block], x[:size], 64, each[:block], each[:size], block))  # noqa: B023
        print(f"  peak memory in addition to the embeddings, {block} x {size} in one task: {peak:.0f} MB")
    for size in (8192, 16384):
        peak = traced(lambda: similarity.top_k(x[:size], x[:size], 64, each[:size], each[:size], tile=block))  # noqa: B023
        answer = size * 64 * 16 / 1e6
        print(
            f"  {size} x {size} in tasks of {block} x {block}: {peak - answer:.0f} MB in addition to the result's {answer:.0f} MB"
        )


def traced(work: Callable[[], object]) -> float:
    """Return the peak of allocated memory, MB."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


def index() -> None:
    """Compare the index with the exact join on this machine."""
    x, _ = draw(10_000, 20)
    each, some = np.arange(len(x)), np.random.default_rng(1).choice(len(x), 2048, replace=False)
    began = time.perf_counter()
    built = similarity.build_ivfpq(x)
    print(f"index of {len(x)} x {D}, 10000 people with 20 takes: built in {time.perf_counter() - began:.0f} s")

    def exact() -> np.ndarray:
        return join_module.decode(join_module.join(x[some], x, K, each[some], each, join_module.BLOCK))[1]

    def approximate() -> np.ndarray:
        return join_module.decode(similarity.search(built, x[some], x, K, each[some], each))[1]

    slow, fast = seconds(exact, 1), seconds(approximate)
    recall = np.mean([len({*a} & {*b}) / K for a, b in zip(exact().tolist(), approximate().tolist(), strict=True)])
    print(f"  exact {len(some) / slow:.0f} queries a second, index {len(some) / fast:.0f}: ", end="")
    print(f"{slow / fast:.0f} times (target: at least 20), recall@{K} {recall:.3f} (target: at least 0.94)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"  peak memory {peak:.2f} GB, of which embeddings {x.nbytes / 1e9:.2f} GB, and as much for the index's copy of them"
    )


def clusters() -> None:
    """Compare the identities of 50,000 tracks, some with cannot-link pairs, with brute force."""
    x, who = draw(5000, 10, 128, noise=0.6)
    each, low, k = np.arange(len(x)), 0.55, 16
    cannot_link = [set[int]() for _ in x]
    takes = np.argsort(who, kind="stable").tolist()
    # a cannot-link pair within each person, like twins in one frame
    for i, j in zip(takes[::10], takes[1::10], strict=True):
        cannot_link[i].add(j)
        cannot_link[j].add(i)
    began = time.process_time()
    found = identity.cluster_identities(x, each, cannot_link, low, k).cluster
    taken = time.process_time() - began
    began = time.process_time()
    expected = brute_force(x, cannot_link, low, k)
    slow = time.process_time() - began
    _, ours = np.unique(found, return_inverse=True)
    _, theirs = np.unique(expected, return_inverse=True)
    same = np.unique(np.stack([ours, theirs]), axis=1).shape[1] == ours.max() + 1 == theirs.max() + 1
    pure = np.mean([len({*who[found == c].tolist()}) == 1 for c in range(200)])
    print(
        f"clusters of {len(x)} x 128: {found.max() + 1} in {taken:.0f} s of CPU, by brute force in {slow:.0f}; ", end=""
    )
    print(f"{'the same' if same else 'NOT the same'}; of 200 clusters, {pure:.3f} show one person")


def brute_force(x: np.ndarray, cannot_link: list[set[int]], low: float, k: int, rows: int = 500) -> np.ndarray:
    """Return the cluster of each track by the definition: all pairs in float64, all means recomputed.

    Two tracks are candidates if each is among the other's k nearest. Most similar first, their clusters are joined unless a
    cannot-link pair forbids it or the mean similarity between them is below `low`.
    """
    wide = x.astype(np.float64)
    nearest: list[dict[int, float]] = []
    for start in range(0, len(x), rows):
        scores = np.round(wide[start : start + rows] @ wide.T, 5)
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -2
        some = np.sort(np.argpartition(-scores, k + 8, axis=1)[:, : k + 8], axis=1)
        for row, columns in zip(scores, some, strict=True):
            best = columns[np.argsort(-row[columns], kind="stable")[:k]]
            nearest.append(dict(zip(best.tolist(), row[best].tolist(), strict=True)))
    pairs = [
        (-s, i, j) for i, near in enumerate(nearest) for j, s in near.items() if i < j and i in nearest[j] and s >= low
    ]
    home, members = list(range(len(x))), {i: [i] for i in range(len(x))}
    for _, i, j in sorted(pairs):
        a, b = home[i], home[j]
        if a == b or any(not cannot_link[n].isdisjoint(members[b]) for n in members[a]):
            continue
        if round((wide[members[a]] @ wide[members[b]].T).mean(), 5) >= low:
            for n in members[b]:
                home[n] = a
            members[a] += members.pop(b)
    return np.array(home)


def scans() -> None:
    """Time scans of two million rows in 250 parts: footers, the ledger with missing rows, two columns of the references."""
    rows, parts = 8000, 250
    kept = [Kept(f"{n:016x}-{n:08d}", f"{n:016x}") for n in range(rows)]
    rules = [Rule("similarity", 0.9, 0.8, 1.0)]
    pair = ("human", 7, 0, "b" * 25, "b" * 33, "c" * 16, 0.9, 0.1, rules)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.write("select", 0, Kept, kept)
        store.write("retrieve", 0, Reference, [Reference(k.clip_id, f"{k.clip_id}/human/0", *pair) for k in kept])
        for stage in ("select", "retrieve"):
            for part in range(1, parts):
                shutil.copy(store.part(stage, 0), store.part(stage, part))

        def footers() -> int:
            return sum(store.footer("select", shard).rows for shard in store.shards("select"))

        def ledger() -> int:
            table = pa.concat_tables([store.table("select", shard, Kept) for shard in store.shards("select")])
            return len(table.filter(pc.invert(pc.is_in(table["clip_id"], pa.array([k.clip_id for k in kept[::2]])))))

        def table() -> float:
            values = [store.columns("retrieve", n, ["similarity", "copy_risk"]) for n in store.shards("retrieve")]
            return pc.mean(pa.concat_tables(values)["similarity"]).as_py()

        for name, work in (("footers", footers), ("ledger and missing rows", ledger), ("two columns", table)):
            print(f"{rows * parts:,} rows in {parts} parts, {name}: {seconds(work):.2f} s (target: at most 2)")


def costs() -> None:
    """Print the computed cost of pairing large corpora, from scratch and after one more shard of 800 elements."""
    print(
        f"computed, not measured: one GPU at {GPU_FLOPS / 1e12:.0f} TFLOP/s in float32, {D} dimensions; lists of 64 neighbours,"
    )
    print(
        f"{COLUMNS_BYTES} bytes of columns per track in memory, pictures and thumbnails of {TARGETS_PER_WAVE:,} targets on disk"
    )
    print(
        f"  {'tracks':>12} {'exact':>9} {'one shard':>10} {'in memory':>10} {'embeddings':>11} {'lists':>8} {'index':>15}"
    )
    for n in (1_000_000, 4_000_000, 12_000_000, 100_000_000):
        hours, more_s = 2.0 * n * n * D / GPU_FLOPS / 3600, 2 * 2.0 * n * 800 * D / GPU_FLOPS
        codes = n * (D // similarity.CODE_DIMS // 2 + 8)
        print(
            f"  {n:12,} {hours:7.2f} h {more_s:8.2f} s {n * (COLUMNS_BYTES + 64 * 8) / 1e9:7.1f} GB {n * D * 4 / 1e9:8.0f} GB "
            f"{n * 64 * 8 / 1e9:5.1f} GB {codes / 1e9:12.1f} GB"
        )


PARTS: dict[str, Callable[[], None]] = {work.__name__: work for work in (join, index, clusters, scans, costs)}
NAMED = {"hubs": partial(hubs.table, [*hubs.CLIPS], [*hubs.SPREADS], [64, 16])}  # only on request


def main() -> None:
    unknown = sorted({*sys.argv[1:]} - {*PARTS, *NAMED})
    if unknown:
        sys.exit(f"unknown part {', '.join(unknown)}; the parts are {', '.join([*PARTS, *NAMED])}")
    print(f"{os.environ.get('OMP_NUM_THREADS', 'all')} thread(s), {Path(__file__).stem}")
    for name in sys.argv[1:] or PARTS:
        (PARTS | NAMED)[name]()


if __name__ == "__main__":
    main()
