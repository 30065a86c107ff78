"""Memory per element in `retrieve`, on synthetic elements: columns against objects.

    python -m benchmarks.corpus_memory [--elements 100000] [--dims 128]

Prints bytes per element, without embeddings: as Arrow rows read from Parquet, as columns of `stages.retrieve.corpus`, and as
Python objects.
"""

import argparse
import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from a2data.records import ElementMeta, EmbeddedElement
from a2data.store.schema import from_table, schema
from stages.retrieve.corpus import assemble


def drawn(elements: int, dims: int, batch: int = 5000) -> pa.Table:
    """Return a table of faces, two in each clip, seen in 17 frames."""
    rng, kind = np.random.default_rng(0), "face"
    batches = []
    for start in range(0, elements, batch):
        vectors = rng.standard_normal((batch, dims), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = []
        for n, vector in enumerate(vectors, start):
            clip = f"{n // 40:016x}-{n // 2 % 20 * 81:08d}"
            rows.append(
                {
                    "clip_id": clip,
                    "element_id": f"{clip}/{kind}/{n % 2}",
                    "kind": kind,
                    "label": kind,
                    "parent_id": f"{clip}/human/{n % 2}",
                    "frame": 40,
                    "image_sha256": f"{n:016x}",
                    "embedder": "dlib",
                    "quality": 0.5,
                    "seen_frames": list(range(0, 81, 5)),
                    "attributes": ["yaw=-0.12", "pitch=0.05", "colour=red"],
                    "embedding": vector,
                }
            )
        batches += pa.Table.from_pylist(rows, schema=schema(EmbeddedElement)).to_batches()
    table = pa.Table.from_batches(batches)
    return table.append_column("shard", pa.array([0] * len(table), pa.int32()))


def held(make: Callable[[], Any]) -> int:
    """Return the bytes of Arrow, numpy and Python that the result of `make` takes."""
    gc.collect()
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    made = make()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before
    tracemalloc.stop()
    del made
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=int, default=100_000)
    parser.add_argument("--dims", type=int, default=128)
    args = parser.parse_args()
    table = drawn(args.elements, args.dims)
    n = len(table)
    traits = table.select([*ElementMeta.__dataclass_fields__, "shard"])
    columns = held(lambda: assemble([table]))
    objects = held(lambda: from_table(ElementMeta, traits))
    print(f"{n} elements of {args.dims} numbers, bytes per element (divide by 1000 for GB per million)")
    print(f"from Parquet, without the embedding    {traits.nbytes / n:8.0f}")
    print(f"the corpus in columns, in addition     {columns / n:8.0f}   (of which embeddings {4 * args.dims})")
    print(f"Python objects, in addition            {objects / n:8.0f}")


if __name__ == "__main__":
    main()
