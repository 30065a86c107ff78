"""Make the cases of A2-Bench and check them against training shards."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any


def make_cases(args: argparse.Namespace, out: Path) -> tuple[list[Any], bool]:
    """Write the cases that the flags describe into a folder. Returns them and whether they overlap with the training shards."""
    from pipelines.bench.a2 import cases, from_pictures, from_triplets, leakage

    with tempfile.TemporaryDirectory() as scratch:
        if args.pictures:
            bench_cases = from_pictures.draw(from_pictures.read_pool(args.pictures), args.count, args.case_seed)
        elif args.triplets:
            bench_cases = from_triplets.draw(args.triplets, args.split, args.count, args.case_seed, Path(scratch))
        else:
            bench_cases = cases.read(args.cases)
        print(f"{len(bench_cases)} cases: {cases.write(bench_cases, out)}")
    bench_cases = cases.read(out)
    if not args.against:
        return bench_cases, False
    overlaps = [str(overlap) for overlap in leakage.overlaps(bench_cases, args.against, args.copy_model, args.faces)]
    if args.triplets:
        overlaps += from_triplets.find_shared(args.triplets, args.split, bench_cases, args.against)
    for overlap in overlaps:
        print(overlap, file=sys.stderr)
    method = f"pictures by bytes, pixels and {args.copy_model}" + f", faces by {args.faces}" * bool(args.faces)
    print(f"{len(overlaps)} overlaps with the training shards ({method})")
    return bench_cases, bool(overlaps)
