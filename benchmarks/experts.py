"""Cost of each expert: images per second one by one and in a batch, CPU seconds, and peak memory.

    [OMP_NUM_THREADS=1] [A2DATA_CORPUS=<folder>] python -m benchmarks.experts [NAME ...] [--role ROLE] [--seconds 1]

Every card whose packages and weights are available is built and called in its own process, on the CPU and, if torch finds one, on
a GPU; so are the small real networks of the corpus. The input depends on the role: a clip of 640 x 360 that pans over a
photograph of a person. Memory is the process's in addition to the inputs; on a GPU, the GPU's.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model_zoo import cards
from model_zoo.catalogue import CARDS
from model_zoo.flow.motion import shrink
from model_zoo.shots import transnet

CORPUS = Path(os.environ.get("A2DATA_CORPUS", Path(__file__).parents[2] / "shared" / "corpus")) / "weights"
SECOND = "models/insightface_mini/mobilefacenet_arcface_128.onnx"
OWN = {  # real weights of the corpus, by card; several files form one folder
    "yolo": [("yolov8n-seg_int8_320.onnx",), ("yolov8n_int8_640.onnx",), ("yolo11n_int8_320.onnx",)],
    "insightface": [("models/insightface_mini",)],
    "retinaface": [("retinaface_mnet025.pth", SECOND)],
    "mobilefacenet": [(SECOND,)],
    "raft-small": [("raft-small.pth",)],
    "bodypix": [("bodypix_mnv1_075_1280x720_24parts.tflite",)],
}
BATCH = 16  # images
PERSON = (220.0, 0.0, 500.0, 360.0)  # box of the astronaut in the frames, px
HEAD = (257.0, 13.0, 338.0, 121.0)
LANDMARKS = np.array([[285, 72], [313, 73], [297, 92], [283, 98], [313, 100]], np.float32)
PHRASES = ["a woman in an orange suit", "a model of a space shuttle", "a flag"]
FPS = 15.0


# -- inputs ------------------------------------------------------------------------------------------------------------


def clip(count: int) -> np.ndarray:
    """Return a pan over NASA's photograph of Eileen Collins from scikit-image, (count, 360, 640, 3) uint8 RGB."""
    from skimage.data import astronaut

    wide = cv2.resize(cv2.copyMakeBorder(astronaut(), 0, 0, 256, 256, cv2.BORDER_REFLECT), (720, 360))
    return np.stack(
        [np.ascontiguousarray(wide[:, shift : shift + 640]) for shift in (40 + n % 16 for n in range(count))]
    )


def calls(role: str, model: Any) -> dict[int, Callable[[], Any]]:
    """Return the calls of a model of that role, by the number of images in a call."""
    frames = clip(100)
    x0, y0, x1, y1 = (int(v) for v in PERSON)
    person, mask = frames[0, y0:y1, x0:x1], np.zeros((y1 - y0, x1 - x0), bool)
    mask[20:, 60:-60] = True
    head = HEAD[0] - x0, HEAD[1], HEAD[2] - x0, HEAD[3]
    hole = np.zeros(frames.shape[1:3], bool)
    hole[100:200, 100:180] = True
    scene = {
        "subjects": [
            {"phrase": "a woman", "type": "human", "action": "", "appearance": "", "position": "", "expression": ""}
        ],
        "environment": "a room",
        "environment_phrase": "a room",
        **dict.fromkeys(("lighting", "camera_motion", "shot_type", "shot_angle", "shot_position"), ""),
    }
    many: dict[str, Callable[[int], Any]] = {
        "detect": lambda n: model(frames[:n]),
        "ground": lambda n: model(frames[:n], PHRASES),
        "embed": lambda n: model([person] * n, [mask] * n),
        "match": lambda n: model(PHRASES, [person] * n),
        "matte": lambda n: model([person] * n),
        "copy": lambda n: model(list(frames[:n])),
        "recognise": lambda n: model(frames[0], np.stack([LANDMARKS] * n)),
        "masks": lambda n: model(frames[0], [PERSON] * n),
        "track": lambda n: model([[PERSON]] * n, [[0.9]] * n),
    }
    alone: dict[str, Callable[[], Any]] = {
        "faces": lambda: model(frames[0]),
        "text": lambda: model(frames[0]),
        "parse": lambda: model(person, mask, head),
        "inpaint": lambda: model(frames[0], hole),
        "fusion": lambda: model(scene),
    }
    whole: dict[str, tuple[int, Callable[[], Any]]] = {
        "patches": (BATCH, lambda: model([person] * BATCH, [mask] * BATCH)),
        "quality": (BATCH, lambda: model(frames[:BATCH], FPS)),
        "flow": (BATCH, lambda: model(np.stack([shrink(frame) for frame in frames[:BATCH]]))),
        "interpolate": (2, lambda: model(frames[0], frames[1])),
        "text-video": (8, lambda: model(frames[:8], PHRASES[0])),
        "shots": (100, lambda: scores(model, frames)),
        "caption": (BATCH, lambda: model(frames[:BATCH], FPS, [])),
        "caption-expert": (BATCH, lambda: model(frames[:BATCH], FPS, [], scene)),
    }
    if role in many:
        return {1: lambda: many[role](1), BATCH: lambda: many[role](BATCH)}
    return {1: alone[role]} if role in alone else dict([whole[role]])


def scores(network: Any, frames: np.ndarray) -> list[tuple[float, float]]:
    """Run a shot network over frames, in the same windows as the segment stage."""
    windows = transnet.Windows(network)
    early = [pair for frame in frames for pair in windows.add(cv2.resize(frame, (48, 27)))]
    return early + windows.finish()


# -- one expert, in a process of its own -------------------------------------------------------------------------------


def measure(name: str, device: str, seconds: float) -> dict[str, Any]:
    """Measure a model: images/s and CPU ms per image, by the number of images in a call, and MB."""
    role = cards.base_card(name).role
    calls(role, None)  # allocates the inputs, which are not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = cards.load(name, device)
    out: dict[str, Any] = {"wall": {}, "cpu": {}}
    for count, call in calls(role, model).items():
        call()  # warm-up: kernel selection, buffers
        rounds, began, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - began < seconds:
            call()
            rounds += 1
        out["wall"][count] = rounds * count / (time.perf_counter() - began)
        out["cpu"][count] = (time.process_time() - cpu) / (rounds * count) * 1000
    out["mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if device == "cuda":
        import torch

        out["mb"] = torch.cuda.max_memory_allocated() / 2**20
    return out


def in_a_process(name: str, device: str, seconds: float) -> dict[str, Any] | str:
    """Return the result of `measure` in a subprocess, or the reason for its failure."""
    try:
        cards.revision(name)
    except (OSError, ValueError) as error:  # without weights, a subprocess is unnecessary
        return str(error)
    command = [sys.executable, "-m", "benchmarks.experts", name, "--child", device, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


# -- all of them -------------------------------------------------------------------------------------------------------


def names(role: str | None, folder: Path) -> list[str]:
    """Return every card, and every network of the corpus by card and path. Folders for several files are made in `folder`."""
    found = list(CARDS)
    for card, networks in OWN.items():
        for files in networks:
            if card in CARDS and all((CORPUS / file).exists() for file in files):
                found.append(f"{card}:{CORPUS / files[0] if len(files) == 1 else together(files, folder)}")
    return [name for name in found if role in (None, cards.base_card(name).role)]


def together(files: Sequence[str], folder: Path) -> Path:
    """Make a folder with links to these files, named after the first."""
    own = folder / Path(files[0]).stem
    own.mkdir()
    for file in files:
        (own / Path(file).name).symlink_to(CORPUS / file)
    return own


def devices() -> list[str]:
    probe = "import torch; print('cuda' if torch.cuda.is_available() else '')"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    return ["cpu", *done.stdout.split()]


def line(name: str, device: str, found: dict[str, Any]) -> str:
    """Return a model's row: single images, the largest batch, the ratio of the two."""
    one, (count, most) = found["wall"].get("1"), list(found["wall"].items())[-1]
    alone = f"{one:10.1f}" if one else f"{'-':>10}"
    batched = f"{most:10.1f} {count:>5}" if count != "1" else f"{'-':>10} {'-':>5}"
    gain = f"{most / one:6.2f}" if one and count != "1" else f"{'-':>6}"
    card, _, path = name.partition(":")
    called = f"{card}:{Path(path).name}" if path else card
    cpu = [f"{found['cpu'][n]:8.1f}" if n in found["cpu"] else f"{'-':>8}" for n in ("1", count)]
    cpu = cpu if count != "1" else [cpu[0], f"{'-':>8}"]
    return f"{called:44} {cards.base_card(name).role:15} {device:5} {alone} {batched} {gain} {cpu[0]} {cpu[1]} {found['mb']:6.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--role")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="duration of each measurement in seconds (default: 1)"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.names[0], args.child, args.seconds)))
        return
    head = f"{'model':44} {'role':15} {'on':5} {'1/call':>10} {'batched':>10} {'n':>5} {'ratio':>6} "
    head += f"{'CPU ms':>8} {'batched':>8} {'MB':>6}"
    print(f"images/s; threads: {os.environ.get('OMP_NUM_THREADS', 'as many as there are')}\n{head}", flush=True)
    away = []
    with tempfile.TemporaryDirectory() as folder:
        for name, device in itertools.product(args.names or names(args.role, Path(folder)), devices()):
            found = in_a_process(name, device, args.seconds)
            if isinstance(found, str):
                away.append(f"{name} on {device}: {found}")
            else:
                print(line(name, device, found), flush=True)
    print("\nnot measured:", *away, sep="\n  ") if away else None


if __name__ == "__main__":
    main()
