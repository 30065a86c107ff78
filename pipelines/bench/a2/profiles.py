"""Profiles of models, metric names, and the handling of missing models and videos.

A metric has the paper's name only with the models of the paper or of VBench. With any other card, the card's name is appended
after a dot, and the metric is not part of any total. A missing model gives a reason, never a number.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from model_zoo import cards
from pipelines.bench.a2.cases import Case
from pipelines.bench.a2.records import CaseRow, Sampled
from pipelines.bench.a2.totals import Measured

Row = dict[str, Measured]
Measure = Callable[[CaseRow, Sampled], Row]

# The purpose of each kind of model, for --help; the key is the field of the metric stages that holds its card.
KINDS = {
    "faces": "face embeddings",
    "ground": "detection of a label",
    "masks": "segmentation of detected boxes",
    "pictures": "similarity of two images",
    "quality": "image quality",
    "aesthetic": "aesthetic quality",
    "interpolate": "interpolation of the frame between two frames",
    "flow": "optical flow",
    "words": "similarity of a video and a text",
}
PROFILES: dict[str, dict[str, str]] = {
    "paper": {
        "faces": "buffalo_l",
        "ground": "grounding-dino-tiny",
        "masks": "sam2.1-hiera-large",
        "pictures": "clip-vit-l14",
        "quality": "musiq-spaq",
        "aesthetic": "laion-aesthetic-v1",
        "interpolate": "amt-s",
        "flow": "raft-large",
        "words": "viclip",
    },
    # Any CPU, nothing fetched: figures of their own, for a look at one's own training, and to try the commands.
    "builtin": {
        "faces": "dlib",
        "ground": "builtin-detect",
        "masks": "",
        "pictures": "mobilenetv2",
        "quality": "blur-effect",
        "aesthetic": "laion-aesthetic-v1",
        "interpolate": "dis-between",
        "flow": "dis",
        "words": "viclip",
    },
}
ORIGINALS = {
    "faces": {"buffalo_l", "antelopev2"},  # ArcFace
    "ground": {"grounding-dino-tiny", "grounding-dino"},
    "masks": {"sam2.1-hiera-tiny", "sam2.1-hiera-large", "sam3"},
    "pictures": {"clip-vit-l14"},  # the paper says CLIP, not which
    "quality": {"musiq-spaq"},  # as in VBench
    "aesthetic": {"laion-aesthetic-v1"},  # the linear head, as in VBench
    "interpolate": {"amt-s"},  # as in VBench
    "flow": {"raft-large"},  # raft-things, as in VBench
    "words": {"viclip"},
}
NEEDS = {"id_consistency": "human", "object_consistency": "object", "background_consistency": "background"}


class MetricGroup(NamedTuple):
    """The measure of one or several metrics, or the reason why it is unavailable."""

    metrics: tuple[str, ...]
    measure: Measure | None
    reason: str = ""


def metric_name(metric: str, models: Mapping[str, str]) -> str:
    """Return a metric's name with these cards, {kind: card}: its base name, plus a dot and the name of each non-default card.

    Raises KeyError for an unknown card.
    """
    suffixes = [name.partition(":")[0] for kind, name in models.items() if name and not _is_original(kind, name)]
    return metric + "".join(f".{name}" for name in suffixes)


def _is_original(kind: str, name: str) -> bool:
    cards.base_card(name)
    return name.partition(":")[0] in ORIGINALS[kind]


def build_group(metrics: tuple[str, ...], models: Mapping[str, str], builder: Callable[..., Measure]) -> MetricGroup:
    """Return the measure of `metrics` with these cards, {kind: card}, or one with a reason if a model is not installed.

    builder: called with the names of the cards and the device, returns the metrics by their base names.
    """
    name_of = {metric: metric_name(metric, models) for metric in metrics}
    try:
        measure = builder(*models.values(), cards.device())
    except (FileNotFoundError, ModuleNotFoundError, PermissionError) as error:
        return MetricGroup(tuple(name_of.values()), None, str(error))

    def renamed(case: CaseRow, sampled: Sampled) -> Row:
        return {name_of[metric]: result for metric, result in measure(case, sampled).items()}

    return MetricGroup(tuple(name_of.values()), renamed)


def measure_all(groups: Iterable[MetricGroup], case: CaseRow, sampled: Sampled) -> Row:
    """Return every metric of one video."""
    row: Row = {}
    for group in groups:
        if group.measure is None:
            row |= {metric: Measured(skipped=group.reason) for metric in group.metrics}
        else:
            row |= group.measure(case, sampled)
    return row


def revisions(names: Iterable[str]) -> dict[str, str]:
    """Return {card: revision}; it changes when the output may change, also when a missing model is installed."""
    return {name: _revision(name) for name in names if name}


def _revision(name: str) -> str:
    try:
        return cards.revision(name)
    except FileNotFoundError:
        return "not here"


def missing_result(case: Case, metric: str) -> Measured:
    """Return the result for a missing video: nothing found, or skipped if the metric does not apply to the case."""
    base_name = metric.partition(".")[0]
    role = NEEDS.get(base_name)
    if base_name == "copy_paste":
        return Measured(skipped="the video is missing")  # 0 would mean equally close to reference and truth
    return Measured(None, 0, 0) if role is None or case.of(role) else Measured(skipped=f"the case has no {role}")


def fill_missing(table: dict[str, Row], missing: Iterable[Case]) -> None:
    """Add missing videos to every metric that other videos have, including externally measured ones."""
    metrics = {metric for row in table.values() for metric, result in row.items() if not result.skipped}
    for case in missing:
        row = table.setdefault(case.id, {})
        row.update(
            {
                metric: missing_result(case, metric)
                for metric in sorted(metrics)
                if metric not in row or row[metric].skipped
            }
        )


def read_external(lines: Iterable[str], path: str, cases: Iterable[Case]) -> dict[str, Row]:
    """Return externally measured values, case -> metric -> value, from JSON lines with case, metric, value and optional seen, of.

    Units are those of `totals.METRICS`: 0 to 1, and 100 times the cosine for text. Raises ValueError for a malformed line and for
    an unknown case.
    """
    case_ids = {case.id for case in cases}
    out: dict[str, Row] = {}
    for number, line in enumerate(lines, 1):
        try:
            data: dict[str, Any] = json.loads(line)
            case, metric, value = data["case"], data["metric"], float(data["value"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: write case, metric and value as JSON ({error!r})") from error
        if case not in case_ids or metric in out.get(case, {}):
            raise ValueError(f"{path}, line {number}: unknown case {case!r}, or a second value of {metric}")
        out.setdefault(case, {})[metric] = Measured(value, int(data.get("seen", 1)), int(data.get("of", 1)))
    return out
