"""Make the cases of A2-Bench and check them against training shards."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any


def made(args: argparse.Namespace, out: Path) -> tuple[list[Any], bool]:
    """Write the cases that the flags describe into a folder. Returns them and whether they overlap with the training shards."""
    from pipelines.bench.a2 import cases, from_pictures, from_triplets, leakage

    with tempfile.TemporaryDirectory() as scratch:
        if args.pictures:
            drawn = from_pictures.draw(from_pictures.pool(args.pictures), args.count, args.case_seed)
        elif args.triplets:
            drawn = from_triplets.draw(args.triplets, args.split, args.count, args.case_seed, Path(scratch))
        else:
            drawn = cases.read(args.cases)
        print(f"{len(drawn)} cases: {cases.write(drawn, out)}")
    drawn = cases.read(out)
    if not args.against:
        return drawn, False
    found = [str(each) for each in leakage.overlaps(drawn, args.against, args.copy_model, args.faces)]
    if args.triplets:
        found += from_triplets.shared(args.triplets, args.split, drawn, args.against)
    for each in found:
        print(each, file=sys.stderr)
    how = f"pictures by bytes, pixels and {args.copy_model}" + f", faces by {args.faces}" * bool(args.faces)
    print(f"{len(found)} overlaps with the training shards ({how})")
    return drawn, bool(found)
