"""Sensitivity of the A2-Bench metrics: whether each falls for the damage that it should detect, and the others fall less.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_damage [--profile paper] [--model KIND=CARD] [--frames N]

The footage is in the folder A2DATA_CORPUS: clips of people who sign, and a film of a bottle. Each damage has three degrees.
A cell is the loss of the row's metric (strict) at the worst degree of the column's damage; "v": it falls with every degree. The
values of the metric that should detect it follow, undamaged first. People and objects are detected with weights of the corpus;
builtin models measure the rest. Metrics without a model are listed at the end.

    blur      every frame blurred, sigma 1, 2, 4 px
    jitter    every frame shifted at random, by up to 2, 4, 8 px
    frozen    1/3, 2/3, all of the frames repeat the first
    person    1/3, 2/3, all of the frames show another person
    thing     1/3, 2/3, all of the frames show another film, without the object
    place     the background blended with a picture of another place by 1/3, 2/3, 1
    prompt    1/3, 2/3, all of the frames show a video that does not match the prompt
"""

import argparse
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from a2data.media import images, video
from pipelines.bench.a2 import stages as metrics
from pipelines.bench.a2.profiles import KINDS, PROFILES
from pipelines.bench.a2.records import CaseRow, ReferenceImage, Sampled

CORPUS = Path(os.environ.get("A2DATA_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
SIGMAS_PX, SHIFTS_PX, FRACTIONS = (1.0, 2.0, 4.0), (2, 4, 8), (1 / 3, 2 / 3, 1.0)
MIN_DROP = 0.002  # relative drop from one degree to the next that counts as a fall
DETECTED_BY = {
    "blur": "image_quality",
    "jitter": "motion_smoothness",
    "frozen": "dynamic_degree",
    "person": "id_consistency",
    "place": "background_consistency",
    "thing": "object_consistency",
    "prompt": "text_similarity",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", default="builtin", choices=sorted(PROFILES))
    parser.add_argument("--model", action="append", default=[], metavar="KIND=CARD")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--metric", action="append", default=[], metavar="STAGE")
    parser.add_argument("--scene", default="", choices=["", *SCENES])
    args = parser.parse_args()
    models = PROFILES[args.profile] | corpus_models(args.profile) | dict(m.split("=", 1) for m in args.model)
    stages = metrics.metric_stages({kind: models[kind] for kind in KINDS}, args.metric)
    loaded = [stage.load() for stage in stages]
    experts = [expert for expert in loaded if expert.measure]
    for scene, make in SCENES.items():
        if args.scene not in ("", scene):
            continue
        case, frames, damages = make(args.frames)
        before, table = measured(experts, case, frames), {}
        for name, degrees in damages.items():
            after = [measured(experts, case, degree) for degree in degrees]
            table[name] = {metric: [before[metric], *(a[metric] for a in after)] for metric in before}
        show(scene, table)
    absent = [metric for expert in loaded if not expert.measure for metric in expert.metrics]
    print(f"no model for: {', '.join(absent) or 'nothing'}")


def corpus_models(profile: str) -> dict[str, str]:
    """Return weights of the corpus that replace builtin models, which need more content than a bottle on a table."""
    if profile != "builtin":
        return {}
    weights = CORPUS / "weights"
    return {
        "faces": f"insightface:{weights / 'models/insightface_mini'}",
        "ground": f"yolo:{weights / 'yolov8n-seg_int8_320.onnx'}",
    }


def measured(experts: list[Any], case: CaseRow, frames: np.ndarray) -> dict[str, float | None]:
    """Return each metric's strict value: 0 for undetected subjects, None if it cannot be measured."""
    made = Sampled(case.clip_id, 15.0, b"")
    made.__dict__["frames"] = frames  # not encoded, which would damage them too
    found = {}
    for expert in experts:
        found |= {
            metric: None if m.skipped else m.as_number("strict") for metric, m in expert.measure(case, made).items()
        }
    return found


def signer(count: int) -> tuple[CaseRow, np.ndarray, dict[str, list[np.ndarray]]]:
    frames, other, own = (clip(f"intel_asl_{name}.mkv", count) for name in ("help", "bird", "again"))
    place = clip("sam2_bedroom.mp4", 1)[0]
    case = CaseRow(
        "signer", "a person signs", [shown("human", own[0], "person"), shown("background", frames[0], "")], b""
    )
    damages = common(frames)
    damages["person"] = [mixed(frames, other, share) for share in FRACTIONS]
    damages["place"] = elsewhere(frames, place)
    damages["prompt"] = [mixed(frames, clip("sam2_01_dog.mp4", count), share) for share in FRACTIONS]
    return case, frames, damages


def bottle(count: int) -> tuple[CaseRow, np.ndarray, dict[str, list[np.ndarray]]]:
    frames = clip("intel_bottle.mp4", count)
    x0, y0, x1, y1 = where_is(frames[0], "bottle")
    case = CaseRow(
        "bottle",
        "a bottle",
        [shown("object", frames[0, y0:y1, x0:x1], "bottle"), shown("background", frames[0], "")],
        b"",
    )
    damages = common(frames)
    damages["thing"] = [mixed(frames, clip("intel_store-aisle-detection.mp4", count), share) for share in FRACTIONS]
    return case, frames, damages


SCENES = {"signer": signer, "bottle": bottle}


def where_is(frame: np.ndarray, label: str) -> tuple[int, int, int, int]:
    from model_zoo import cards

    find = cards.load(corpus_models("builtin")["ground"])
    found = [d for d in find(frame[None])[0] if d.label == label]
    if not found:
        raise ValueError(f"no {label} in the first frame: this is not the expected film")
    x0, y0, x1, y1 = max(found, key=lambda d: d.score).box
    return int(x0), int(y0), int(x1), int(y1)


def clip(name: str, count: int) -> np.ndarray:
    """Return the first frames of a film, (count, 320, w, 3)."""
    frames = []
    for frame in video.read(str(CORPUS / "video" / name)):
        picture = frame.picture.to_ndarray(format="rgb24")
        height, width = picture.shape[:2]
        frames.append(cv2.resize(picture, (round(320 * width / height / 8) * 8, 320), interpolation=cv2.INTER_AREA))
        if len(frames) == count:
            break
    return np.stack(frames)


def shown(role: str, picture: np.ndarray, label: str) -> ReferenceImage:
    return ReferenceImage(role, label, ".png", images.to_png(np.ascontiguousarray(picture)))


def common(frames: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Return the kinds of damage that do not need another film."""
    rng = np.random.default_rng(0)
    offsets = rng.uniform(-1, 1, (len(frames), 2))
    each = lambda change: np.stack([change(n, frame) for n, frame in enumerate(frames)])  # noqa: E731
    return {
        "blur": [each(lambda _, f, s=sigma: cv2.GaussianBlur(f, None, s)) for sigma in SIGMAS_PX],
        "jitter": [each(lambda n, f, p=px: moved(f, *(p * offsets[n]))) for px in SHIFTS_PX],
        "frozen": [frozen(frames, share) for share in FRACTIONS],
    }


def moved(frame: np.ndarray, right: float, down: float) -> np.ndarray:
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float32)
    return cv2.warpAffine(frame, matrix, frame.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def frozen(frames: np.ndarray, share: float) -> np.ndarray:
    out = frames.copy()
    out[: round(share * len(out))] = out[0]
    return out


def mixed(frames: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """Replace the last frames by those of another film."""
    out, first = frames.copy(), len(frames) - round(share * len(frames))
    for n in range(first, len(frames)):
        out[n] = cv2.resize(other[n % len(other)], frames.shape[2:0:-1])
    return out


def elsewhere(frames: np.ndarray, place: np.ndarray) -> list[np.ndarray]:
    """Blend another place behind the detected person, with a soft edge, to each degree of FRACTIONS."""
    from model_zoo import cards

    find = cards.load(corpus_models("builtin")["ground"])
    place = cv2.resize(place, frames.shape[2:0:-1])
    fronts = []
    for frame, found in zip(frames, find(frames), strict=True):
        empty = np.zeros(frame.shape[:2], bool)
        mask = np.logical_or.reduce([empty, *(d.mask for d in found if d.kind == "human" and d.mask is not None)])
        fronts.append(cv2.GaussianBlur(mask.astype(np.float32), None, 2)[..., None])
    front = np.stack(fronts)
    behind = [(1 - share) * frames + share * place for share in FRACTIONS]
    return [(front * frames + (1 - front) * ground).astype(np.uint8) for ground in behind]


def show(scene: str, table: dict[str, dict[str, list[float | None]]]) -> None:
    """Print the loss of every metric for every kind of damage, then the values of the metrics that should detect it."""
    names = list(dict.fromkeys(metric for row in table.values() for metric in row))
    known = [m for m in names if any(v is not None for row in table.values() for v in row[m])]
    print(f"{scene + ', lost at the worst degree':46}" + "".join(f"{name:>9}" for name in table))
    for metric in known:
        print(f"{metric[:46]:46}" + "".join(f"{cell(metric, row[metric]):>9}" for row in table.values()))
    for damage, row in table.items():
        for metric in known:
            if metric.partition(".")[0] == DETECTED_BY[damage]:
                print(f"  {damage:8} {metric:44} " + "  ".join(f"{v:.3f}" for v in row[metric] if v is not None))
    print()


def cell(metric: str, values: list[float | None]) -> str:
    """Return the loss relative to the undamaged value; "v": the value falls with every degree."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return "none"
    steps = [a - b for a, b in pairwise(known)]
    # 0 or 1, which cannot fall three times
    least = 0 if metric.startswith("dynamic_degree") else MIN_DROP * abs(known[0] or 1)
    falls = min(steps) >= least and known[-1] < known[0]
    lost = 1 - known[-1] / known[0] if known[0] else 0.0
    return f"{lost:.0%}{' v' if falls else '  '}"


if __name__ == "__main__":
    main()
