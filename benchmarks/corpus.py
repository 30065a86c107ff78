"""Real footage with known people: accuracy of cuts and references, and rejection of copies.

    A2DATA_CORPUS=<folder> python -m benchmarks.corpus [builtin] [weights] [--work FOLDER]

Runs the pipeline over 14 single-shot clips of five people and a film that repeats some of that footage re-encoded, once with the
`builtin` profile and once with the corpus's YOLO and insightface weights, and prints one line per figure. Truth: MANIFEST.json of
the corpus.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from a2data.records import Clip, Element, Kept, Reference, Video
from a2data.store.tables import Store
from pipelines.cli.main import main as a2data

CORPUS = Path(os.environ.get("A2DATA_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
WEIGHTS = CORPUS / "weights"
NO_CORPUS = "skipped: no corpus of real footage; set A2DATA_CORPUS to its folder"
SETTINGS = {
    "builtin": [],
    "weights": [
        f"detect.model=yolo:{WEIGHTS / 'yolov8n-seg_int8_320.onnx'}",
        f"faces.model=insightface:{WEIGHTS / 'models' / 'insightface_mini'}",
        "retrieve.min_face=0.7",  # midway between the most similar strangers and the least similar pictures of one person
    ],
}


def available() -> bool:
    """Return whether the corpus of real footage is available."""
    return (CORPUS / "MANIFEST.json").exists()


class Truth:
    """The person and the take of each clip."""

    def __init__(self) -> None:
        files = json.loads((CORPUS / "MANIFEST.json").read_text())["files"]
        self.files = {Path(f["file"]).name: f for f in files}
        self.names = [*sorted(n for n in self.files if n.startswith("intel_asl_")), "derived_asl_hardcuts.mp4"]

    def of(self, name: str, frame: int) -> tuple[str, str]:
        """Return (person, take) at a frame of a file."""
        if "identity" in self.files[name]:
            return self.files[name]["identity"], name.removeprefix("intel_")
        shot = next(s for s in self.files[name]["shots"]["shots"] if s["start"] <= frame < s["end"])
        return shot["person"], shot["source"]


def measure(profile: str, work: Path) -> list[str]:
    """Return the lines of one profile."""
    truth, began = Truth(), time.perf_counter()
    videos = [str(CORPUS / "video" / name) for name in truth.names]
    command = ["run", *videos, "--work", str(work), "--quiet"]
    for setting in SETTINGS[profile]:
        command += ["--set", setting]
    if a2data(command) != 0:
        sys.exit(f"the run over {work} failed")
    seconds = time.perf_counter() - began

    store = Store(work)

    def rows(stage: str, record: type) -> list[Any]:
        return [row for shard in store.shards(stage) for row in store.read(stage, shard, record)]

    names = {video.video_id: Path(video.path).name for video in rows("ingest", Video)}
    clips = {c.clip_id: c for c in rows("segment", Clip)}
    who = {i: truth.of(names[c.video_id], c.source_frames[0]) for i, c in clips.items()}
    film = "derived_asl_hardcuts.mp4"
    cuts = sorted({c.shot_start for c in clips.values() if names[c.video_id] == film} - {0})
    expected = truth.files[film]["shots"]["hard_cuts"]
    false = sum(c.shot > 0 for c in clips.values() if names[c.video_id] != film)
    kept = {row.clip_id for row in rows("select", Kept)}
    references = rows("retrieve", Reference)
    people = [r for r in references if r.kind in ("human", "face")]
    right = sum(who[r.clip_id][0] == who[r.source_clip_id][0] for r in people)
    copies = sum(who[r.clip_id][1] == who[r.source_clip_id][1] for r in references)
    eligible = {c for c in kept for o in kept if o != c and who[o][0] == who[c][0] and who[o][1] != who[c][1]}
    lines = [
        f"cuts: {len(set(cuts) & set(expected))} of {len(expected)} exact, {len(set(cuts) - set(expected))} false in the film, "
        f"{false} false in the single shots",
        f"clips: {len(clips)}, kept {len(kept)}, with an eligible partner {len(eligible)}",
        f"people: precision {right}/{len(people)} = {right / max(1, len(people)):.3f}",
        f"references from their own take (copies) or clip: {copies}",
    ]
    for kind in ("human", "face"):
        got = {r.clip_id for r in references if r.kind == kind} & eligible
        lines.append(f"{kind}s: recall {len(got)}/{len(eligible)} = {len(got) / max(1, len(eligible)):.3f}")
    elements = [e for stage in ("detect", "parse", "background") for e in rows(stage, Element)]
    for kind in ("object", "upper", "hair", "background"):
        found, got = sum(e.kind == kind for e in elements), sum(r.kind == kind for r in references)
        lines.append(f"{kind}s: {found} found, {got} with a reference")
    lines.append(f"time: {seconds:.0f} s, {len(clips) / seconds * 60:.0f} clips/min")
    return [f"{profile}: {line}" for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profiles", nargs="*", default=sorted(SETTINGS))
    parser.add_argument("--work", type=Path, help="keep the tables here")
    args = parser.parse_args()
    if not available():
        print(NO_CORPUS)
        return
    with tempfile.TemporaryDirectory() as scratch:
        for profile in args.profiles:
            print("\n".join(measure(profile, (args.work or Path(scratch)) / profile)), flush=True)


if __name__ == "__main__":
    main()
