"""Damage, kill and attack whatever a2data reads: what is lost, what hangs, what gets out of its folder?

    OMP_NUM_THREADS=1 python -m benchmarks.faults [videos] [kills] [folders] [shards] [--seed 0] [--count 540] [--kills 60]

Prints a table of what was tried and what survived. Exits 1 if anything did not.

* videos: damaged files of six containers through `ingest` and `segment`. A video survives when it is accounted for by name, as a
  clip, a reject or a failure, and no worker hung on it.
* kills: SIGKILL, SIGTERM and SIGINT at random moments of a real run. Survives: the shards are the same, byte for byte.
* folders: a finished work folder or its shards, damaged. Survives: the commands work, and the next run restores the same shards.
* shards: hostile shards through every program that reads shards. Survives: rejected or skipped, nothing written elsewhere, at
  most 2 GB.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.faults import folders, hostile, kills, table, videos

SECTIONS = ("videos", "kills", "folders", "shards")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", nargs="*", choices=[*SECTIONS, []], help="what to run (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default: 0)")
    parser.add_argument("--count", type=int, default=540, help="damaged videos, at least (default: 540)")
    parser.add_argument("--kills", type=int, default=60, help="kills in all (default: 60)")
    args = parser.parse_args()
    logging.getLogger("a2data").setLevel(logging.ERROR)
    rows: list[table.Row] = []
    sections = args.section or SECTIONS
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if sections != ["videos"]:
            run, films, seconds = kills.finished_run(root)
        for section in sections:
            home = root / section
            home.mkdir()
            found: Iterable[table.Row]
            if section == "videos":
                found = videos.damaged_videos(home, args.count, args.seed)
            elif section == "kills":
                found = kills.kills(home, run, films, seconds, args.kills, args.seed)
            elif section == "folders":
                found = folders.damaged_folders(home, run, args.seed)
            else:
                found = hostile.hostile_shards(home, run.root / "shards")
            for row in found:
                print(*row, sep=" | ", flush=True)
                rows.append(row)
    print(table.markdown(rows))
    print(f"largest memory of a child process: {table.peak_children_mb():.0f} MB")
    sys.exit(any(row.survived < row.tried for row in rows))


if __name__ == "__main__":
    main()
