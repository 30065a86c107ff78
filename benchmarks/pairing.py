"""Cost of the stage `retrieve` on drawn corpora: CPU seconds and memory, from scratch and after one more video.

    OMP_NUM_THREADS=1 python -m benchmarks.pairing [--elements 5000,50000] [--folder FOLDER] [--against CHECKOUT]

A clip has a person with a face and a garment, an object and a place. Each person, garment, object and place is drawn for ten
clips, twenty clips are a video and eight videos a shard, embeddings have 128 values, thumbnails are noise, and cut-outs measure 64
x 96 pixels. The parts are real, written by the store, and every element is a target. Each job runs in a process of its own.
--against pairs a copy with the code of another checkout first and compares the rows. --folder keeps the drawn folders.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

D, TAKES, CLIPS_PER_VIDEO, VIDEOS_PER_SHARD, ELEMENTS_PER_CLIP = 128, 10, 20, 8, 5
TABLE = {"human": "detect", "object": "detect", "face": "faces", "upper": "parse", "background": "background"}
SETTINGS = {"min_face": 0.4, "min_object": 0.4, "min_part": 0.4, "min_background": 0.4}


def draw(root: str, elements: int, more: bool = False) -> None:
    """Write the inputs of `retrieve`; more: only those of one further video, of people seen before, in a shard of its own."""
    from a2data.media import images
    from a2data.records import Element, Match
    from a2data.store.tables import Store
    from stages.retrieve.stage import Retrieve

    store, rng = Store(root), np.random.default_rng(more)
    clips = elements // ELEMENTS_PER_CLIP
    subjects = np.random.default_rng(5).standard_normal((4, max(1, clips // TAKES), D)).astype(np.float32)
    subjects /= np.linalg.norm(subjects, axis=2, keepdims=True)
    who = np.random.default_rng(6).integers(0, subjects.shape[1], (4, clips))
    ramp = np.linspace(0, 255, 24)[None, :, None] * np.ones((16, 1, 3))
    pool = []
    for _ in range(100):
        soft = np.kron(rng.integers(60, 250, (12, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        inside = np.hypot(*np.mgrid[-1:1:96j, -1:1:64j]) < rng.uniform(0.8, 1.0)
        png = images.to_png(images.cut_out(soft, inside, (0, 0, 64, 96)))
        mask = np.zeros((180, 320), bool)
        mask[40:136, 100:164] = inside
        pool.append((png, images.sha16(png), images.to_rle(mask)))
    del ramp
    colours = ["colour=red", "colour=blue", "colour=white"]
    records = {name: record for name, record in Retrieve.reads.items()}
    per_shard = CLIPS_PER_VIDEO * VIDEOS_PER_SHARD
    first, last = (clips, clips + CLIPS_PER_VIDEO) if more else (0, clips)
    for start in range(first, last, per_shard):
        shard = -(-start // per_shard)
        rows: dict[str, list] = {name: [] for name in records}
        for n in range(start, min(start + per_shard, last)):
            video, at = f"{n // CLIPS_PER_VIDEO:016x}", n % CLIPS_PER_VIDEO * 90
            clip, subject = f"{video}-{at:08d}", who[:, n % clips]
            pts = [(at + k) / 15 for k in range(81)]
            rows["segment"].append((clip, video, pts, rng.integers(0, 256, (81, 18, 24), np.uint8).tobytes()))
            for kind, number in (("human", -1), ("face", 0), ("upper", 1), ("object", 2), ("background", 3)):
                vector: list = []
                if number >= 0:
                    x = subjects[number, subject[number]] + rng.standard_normal(D, np.float32) * np.float32(0.75 / D**0.5)
                    vector = x / np.linalg.norm(x)
                png, sha, mask = pool[rng.integers(len(pool))]
                label = f"object {subject[2] % 20}" if kind == "object" else kind
                parent = f"{clip}/human/0" if kind in ("face", "upper") else ""
                about = (clip, f"{clip}/{kind}/0", kind, label, parent, 40, (100.0, 40.0, 164.0, 136.0), 0.9)
                seen = list(range(0, 81, 5))
                boxes = [(100.0, 40.0, 164.0, 136.0)] * len(seen)
                named = [colours[subject[2 if kind == "object" else 1] % 3], "yaw=-0.12", "coverage=0.91"]
                quality = round(float(rng.uniform(0.3, 1)), 3)
                rows[TABLE[kind]].append(
                    Element(*about, mask, png, sha, vector, "dlib" if number >= 0 else "", quality, seen, boxes, named)
                )
                if kind in ("human", "object"):
                    rows["match"].append(Match(clip, f"{clip}/{kind}/0", "it", 0, 2, 1.0, 1.0))
        for name, found in rows.items():
            if name == "segment":
                _write_clips(store, shard, found)
            else:
                with store.create(name, Match if name == "match" else Element, shard) as part:
                    part.add(found)
                    part.footer.num_inputs = len(found)
                    part.commit()


def _write_clips(store, shard: int, rows: list) -> None:
    from a2data.records import ClipThumbs

    with store.create("segment", ClipThumbs, shard) as part:
        part.add(ClipThumbs(*row) for row in rows)
        part.footer.num_inputs = len(rows)
        part.commit()


def pair(root: str) -> None:
    """Run the job of `retrieve` in this process and print its cost as JSON on the last line."""
    from a2data.job import run_job
    from a2data.store.tables import Store
    from stages.retrieve.stage import Retrieve

    store, stage = Store(root), replace(Retrieve(), **SETTINGS)
    before = time.process_time()
    base_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    run_job([stage], [None], store, tuple(store.shards("match")))
    cost = {"cpu_s": time.process_time() - before, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    rows = sum(store.footer("retrieve", shard).rows for shard in store.shards("retrieve"))
    print(json.dumps(cost | {"base_mb": base_mb, "rows": rows}))


def compare(root: str, other: str) -> None:
    """Print how many parts of `retrieve` differ in their rows or in their rejections."""
    from a2data.store.tables import Store

    ours, theirs = Store(root), Store(other)
    shards = theirs.shards("retrieve")
    rows = rejected = 0
    for shard in shards:
        a, b = (store.footer("retrieve", shard) for store in (ours, theirs))
        rows += a is None or a.digest != b.digest
        rejected += a is None or sorted(map(str, a.rejected)) != sorted(map(str, b.rejected))
    print(json.dumps({"parts": len(shards), "rows": rows, "rejected": rejected}))


def child(code: str, *args: str) -> dict:
    """Run this script in a process with the code of a checkout and return the JSON that it prints."""
    env = os.environ | {"PYTHONPATH": code}
    done = subprocess.run([sys.executable, __file__, *args], env=env, cwd=code, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    last = done.stdout.strip().splitlines()[-1:] or ["{}"]
    return json.loads(last[0])


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--elements", default="5000,50000")
    parse.add_argument("--folder", type=Path)
    parse.add_argument("--against", help="root of another checkout")
    args = parse.parse_args()
    here = str(Path(__file__).parents[1])
    print(f"{'code':7} {'elements':>9} {'job':15} {'CPU s':>8} {'peak MB':>8} {'references':>11}")
    with tempfile.TemporaryDirectory() as scratch:
        for elements in map(int, args.elements.split(",")):
            root = (args.folder or Path(scratch)) / f"drawn-{elements}"
            if not root.exists():
                child(here, "draw", str(root), str(elements), "")
            roots = {}
            for name, code in [("before", args.against)] * bool(args.against) + [("now", here)]:
                roots[name] = Path(scratch) / f"{name}-{elements}"
                shutil.copytree(root, roots[name], copy_function=os.link)
                for job in ("from scratch", "one more video"):
                    if job != "from scratch":
                        child(here, "draw", str(roots[name]), str(elements), "more")
                    cost = child(code, "pair", str(roots[name]))
                    print(
                        f"{name:7} {elements:9} {job:15} {cost['cpu_s']:8.2f} {cost['mb']:8.0f} {cost['rows']:11}", flush=True
                    )
            if args.against:
                same = child(here, "compare", *(str(roots[name]) for name in ("now", "before")))
                print(f"of {same['parts']} parts, {same['rows']} differ in rows, {same['rejected']} in rejections")
            for made in roots.values():
                shutil.rmtree(made)


if __name__ == "__main__":
    if sys.argv[1:2] == ["draw"]:
        draw(sys.argv[2], int(sys.argv[3]), bool(sys.argv[4]))
    elif sys.argv[1:2] == ["pair"]:
        pair(sys.argv[2])
    elif sys.argv[1:2] == ["compare"]:
        compare(*sys.argv[2:])
    else:
        main()
