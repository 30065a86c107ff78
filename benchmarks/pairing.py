"""Cost of the stage `retrieve` on drawn corpora: CPU seconds and memory, from scratch and after one more video.

    OMP_NUM_THREADS=1 python -m benchmarks.pairing [--elements 5000,50000] [--folder FOLDER] [--against CHECKOUT]
    OMP_NUM_THREADS=1 python -m benchmarks.pairing large ELEMENTS DIMENSIONS SHARE

A clip has a person with a face and a garment, an object and a place. Each person, garment, object and place is drawn for ten
clips, twenty clips are a video and eight videos a shard, embeddings have 128 values, thumbnails are noise, and cut-outs measure
64 x 96 pixels. The parts are real, written by the store, and every element is a target. Each job runs in a process of its own.
--against pairs a copy with the code of another checkout first and compares the rows. --folder keeps the drawn folders. large
draws columns only, without parts, of which a share of the clips has targets, and prints the memory of one process.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
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
    pool = []
    for _ in range(100):
        soft = np.kron(rng.integers(60, 250, (12, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        inside = np.hypot(*np.mgrid[-1:1:96j, -1:1:64j]) < rng.uniform(0.8, 1.0)
        cut = images.cut_out(soft, inside, (0, 0, 64, 96))
        png, stamp = images.to_png(cut), images.stamp(cut)
        mask = np.zeros((180, 320), bool)
        mask[40:136, 100:164] = inside
        pool.append((png, images.sha16(png), images.to_rle(mask), stamp))
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
                    x = subjects[number, subject[number]] + rng.standard_normal(D, np.float32) * np.float32(
                        0.75 / D**0.5
                    )
                    vector = x / np.linalg.norm(x)
                png, sha, mask, stamp = pool[rng.integers(len(pool))]
                label = f"object {subject[2] % 20}" if kind == "object" else kind
                parent = f"{clip}/human/0" if kind in ("face", "upper") else ""
                about = (clip, f"{clip}/{kind}/0", kind, label, parent, 40, (100.0, 40.0, 164.0, 136.0), 0.9)
                seen = list(range(0, 81, 5))
                boxes = [(100.0, 40.0, 164.0, 136.0)] * len(seen)
                named = [colours[subject[2 if kind == "object" else 1] % 3], "yaw=-0.12", "coverage=0.91"]
                quality = round(float(rng.uniform(0.3, 1)), 3)
                embedder = "dlib" if number >= 0 else ""
                picture = (mask, png, sha, vector, embedder, quality, seen, boxes, named, -1.0, stamp)
                rows[TABLE[kind]].append(Element(*about, *picture))
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


def large(elements: int, dims: int, share: float) -> None:
    """Pair a drawn corpus whose columns are mapped from disk; only a share of the clips has targets, with drawn pictures."""
    import pyarrow as pa

    from a2data.corpus_job import Spool
    from a2data.media import images
    from a2data.records import ClipThumbs, ClipTimes, ElementStamp, EmbeddedElement
    from a2data.store.earlier import Earlier
    from a2data.store.schema import schema
    from a2data.store.tables import Store
    from stages.retrieve.stage import Retrieve

    clips, per_shard, rng = elements // ELEMENTS_PER_CLIP, CLIPS_PER_VIDEO * VIDEOS_PER_SHARD, np.random.default_rng(0)
    shard_field = pa.field("shard", pa.int32())
    centres = rng.standard_normal((4, clips // TAKES, dims)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=2, keepdims=True)
    who = rng.integers(0, clips // TAKES, (4, clips))
    stamp = images.stamp(images.cut_out(np.full((24, 24, 3), 90, np.uint8), np.ones((24, 24)) > 0, (0, 0, 24, 24)))
    mask = images.to_rle(np.pad(np.ones((24, 24), bool), 60))

    def names(first: int, last: int) -> list[str]:
        return [f"{n // CLIPS_PER_VIDEO:016x}-{n % CLIPS_PER_VIDEO * 90:08d}" for n in range(first, last)]

    def looks(kind: str, number: int):
        for first in range(0, clips, 10_000):
            clip = names(first, min(first + 10_000, clips))
            n, label = len(clip), [kind] * len(clip)
            if number >= 0:
                x = centres[number, who[number, first : first + n]]
                x = x + rng.standard_normal((n, dims), np.float32) * np.float32(0.75 / dims**0.5)
                x /= np.linalg.norm(x, axis=1, keepdims=True)
                vectors = pa.ListArray.from_arrays(np.arange(0, n * dims + 1, dims, dtype=np.int32), x.reshape(-1))
                label = [f"object {w % 20}" for w in who[number, first : first + n]] if kind == "object" else label
            else:
                vectors = pa.array([[]] * n, pa.list_(pa.float32()))
            parents = [f"{c}/human/0" if kind in ("face", "upper") else "" for c in clip]
            columns = {
                "clip_id": clip,
                "element_id": [f"{c}/{kind}/0" for c in clip],
                "kind": [kind] * n,
                "label": label,
                "parent_id": parents,
                "frame": [40] * n,
                "image_sha256": [f"{first + k:016x}" for k in range(n)],
                "embedder": ["dlib" if number >= 0 else ""] * n,
                "quality": rng.uniform(0.3, 1, n),
                "seen_frames": [list(range(0, 81, 5))] * n,
                "attributes": [["colour=red", "yaw=-0.12", "coverage=0.91"]] * n,
                "mask_confidence": [-1.0] * n,
            }
            made = pa.table([pa.array(v) for v in columns.values()] + [vectors], [*columns, "embedding"])
            shards = pa.array(np.arange(first, first + n, dtype=np.int32) // per_shard)
            yield made.append_column(shard_field, shards)

    def takes():
        for first in range(0, clips, 10_000):
            clip = names(first, min(first + 10_000, clips))
            start = np.arange(first, first + len(clip)) % CLIPS_PER_VIDEO * 6.0
            pts = pa.ListArray.from_arrays(
                np.arange(0, 81 * len(clip) + 1, 81, dtype=np.int32), (start[:, None] + np.arange(81) / 15).reshape(-1)
            )
            shards = pa.array(np.arange(first, first + len(clip), dtype=np.int32) // per_shard)
            yield pa.table(
                [pa.array(clip), pa.array([c[:16] for c in clip]), pts, shards],
                ["clip_id", "video_id", "source_pts_s", "shard"],
            )

    def lookup(stage, shard, column, values, record=None):
        if stage == "segment":
            seeds = ((v, np.random.default_rng(int(v[:16], 16) * 2000 + int(v[17:]))) for v in values)
            return {
                v: ClipThumbs(v, v[:16], [], r.integers(0, 256, (81, 18, 24), np.uint8).tobytes()) for v, r in seeds
            }
        return {v: ElementStamp(v, 40, (60.0, 60.0, 84.0, 84.0), mask, stamp) for v in values}

    with Spool() as spool, tempfile.TemporaryDirectory() as folder:
        full, timed = (schema(record).append(shard_field) for record in (EmbeddedElement, ClipTimes))
        clip_table = spool.table(timed, takes())
        kinds = [("human", -1), ("object", 2), ("face", 0), ("upper", 1), ("background", 3)]
        tables = [spool.table(full, looks(*kind)) for kind in kinds]
        asked = names(0, clips)[:: max(1, round(1 / share))]
        matches = pa.table(
            {"element_id": [f"{c}/{k}/0" for c in asked for k in ("human", "object")], "clip_id": np.repeat(asked, 2)}
        )
        earlier = Earlier(
            Store(folder), Retrieve(**SETTINGS), *[{n: str(n) for n in range(clips // per_shard + 1)}] * 2
        )
        watch = Watch()
        began, kept, peak_drawn = time.process_time(), 0, watch.peaks()
        for made in replace(Retrieve(), **SETTINGS).run(
            None, matches, clip_table, *tables, lookup=lookup, earlier=earlier
        ):
            kept += len(made) if isinstance(made, pa.Table) else 0
        print(
            f"{elements} elements of {dims} numbers, {len(asked)} of {clips} clips with targets: {kept} references, ",
            end="",
        )
        print(
            f"{time.process_time() - began:.0f} CPU s; own memory {watch.peaks()[0]:.0f} MB ({peak_drawn[0]:.0f} before), ",
            end="",
        )
        print(f"with pages mapped from files {watch.peaks()[1]:.0f} MB; embeddings {4 * dims * 4 * clips / 1e6:.0f} MB")


class Watch:
    """Peaks of this process's memory, MB: its own pages, and all resident pages."""

    def __init__(self) -> None:
        self.own = self.all = 0.0
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        while True:
            told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.own = max(self.own, int(told["RssAnon"].split()[0]) / 1024)
            self.all = max(self.all, int(told["VmRSS"].split()[0]) / 1024)
            time.sleep(0.1)

    def peaks(self) -> tuple[float, float]:
        return self.own, self.all


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
    done = subprocess.run(
        [sys.executable, __file__, *args], env=env, cwd=code, capture_output=True, text=True, check=False
    )
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
                        f"{name:7} {elements:9} {job:15} {cost['cpu_s']:8.2f} {cost['mb']:8.0f} {cost['rows']:11}",
                        flush=True,
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
    elif sys.argv[1:2] == ["large"]:
        large(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    elif sys.argv[1:2] == ["compare"]:
        compare(*sys.argv[2:])
    else:
        main()
