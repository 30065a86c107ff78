"""Which model measures what, under which name; and what is said where nothing could be measured.

A metric bears the paper's name only with the models that the paper, or VBench, has. With any other card its name has the card's
behind a dot, and it enters no total. A model that is not here is a reason, never a number.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from model_zoo import cards
from pipelines.bench.a2.cases import Case
from pipelines.bench.a2.records import CaseRow, Sampled
from pipelines.bench.a2.totals import Measured

Row = dict[str, Measured]
Ask = Callable[[CaseRow, Sampled], Row]

# What each kind of model is for: the field of the stages in `metrics` that names its card.
KINDS = {
    "faces": "who a face is",
    "ground": "finds what a label names",
    "masks": "cuts out what was found",
    "pictures": "how alike two pictures are",
    "quality": "how clear a picture is",
    "aesthetic": "how beautiful a picture is",
    "interpolate": "the frame half way between two",
    "flow": "how far everything moves",
    "words": "how well a video fits a text",
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


class Expert(NamedTuple):
    """What gives one metric or several; or the reason why it does not."""

    metrics: tuple[str, ...]
    ask: Ask | None
    reason: str = ""


def named(metric: str, models: Mapping[str, str]) -> str:
    """A metric's name when these measure it, kind -> card: its own, and behind dots the cards that are not the paper's.

    Raises KeyError for a card that nobody knows.
    """
    others = [name.partition(":")[0] for kind, name in models.items() if name and not _is_original(kind, name)]
    return metric + "".join(f".{name}" for name in others)


def _is_original(kind: str, name: str) -> bool:
    cards.base_card(name)
    return name.partition(":")[0] in ORIGINALS[kind]


def built(metrics: tuple[str, ...], models: Mapping[str, str], builder: Callable[..., Ask]) -> Expert:
    """What measures `metrics` by these cards, kind -> card; one with a reason where a model is not here.

    builder: called with the names of the cards and the device, it gives the metrics by their own names.
    """
    called = {metric: named(metric, models) for metric in metrics}
    try:
        ask = builder(*models.values(), cards.device())
    except (FileNotFoundError, ModuleNotFoundError, PermissionError) as error:
        return Expert(tuple(called.values()), None, str(error))

    def renamed(asked: CaseRow, sampled: Sampled) -> Row:
        return {called[metric]: found for metric, found in ask(asked, sampled).items()}

    return Expert(tuple(called.values()), renamed)


def row(experts: Iterable[Expert], asked: CaseRow, sampled: Sampled) -> Row:
    """Every metric of one video."""
    found: Row = {}
    for expert in experts:
        if expert.ask is None:
            found |= {metric: Measured(skipped=expert.reason) for metric in expert.metrics}
        else:
            found |= expert.ask(asked, sampled)
    return found


def revisions(names: Iterable[str]) -> dict[str, str]:
    """Card -> what changes when its output may: so that a model that was not here is asked when it is."""
    return {name: _revision(name) for name in names if name}


def _revision(name: str) -> str:
    try:
        return cards.revision(name)
    except FileNotFoundError:
        return "not here"


def absent(case: Case, metric: str) -> Measured:
    """What is said of a video that is not there: nothing was found, unless the case would not have asked for it."""
    plain = metric.partition(".")[0]
    role = NEEDS.get(plain)
    if plain == "copy_paste":
        return Measured(skipped="there is no video")  # 0 would say: as near to the one as to the other
    return Measured(None, 0, 0) if role is None or case.of(role) else Measured(skipped=f"the case has no {role}")


def fill_in(table: dict[str, Row], gone: Iterable[Case]) -> None:
    """Let videos that are not there count in every metric that others have, also in those that were measured elsewhere."""
    known = {metric for row in table.values() for metric, found in row.items() if not found.skipped}
    for case in gone:
        row = table.setdefault(case.id, {})
        row.update(
            {metric: absent(case, metric) for metric in sorted(known) if metric not in row or row[metric].skipped}
        )


def given(lines: Iterable[str], where: str, cases: Iterable[Case]) -> dict[str, Row]:
    """Values measured elsewhere: case -> metric -> value, from JSON lines with case, metric, value and, perhaps, seen and of.

    In the units of `score.METRICS`: 0 to 1, and 100 times the cosine of text. Raises ValueError for a line that is none, or of a
    case that there is not.
    """
    known = {case.id for case in cases}
    out: dict[str, Row] = {}
    for number, line in enumerate(lines, 1):
        try:
            data: dict[str, Any] = json.loads(line)
            case, metric, value = data["case"], data["metric"], float(data["value"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where}, line {number}: write case, metric and value as JSON ({error!r})") from error
        if case not in known or metric in out.get(case, {}):
            raise ValueError(f"{where}, line {number}: there is no case {case!r}, or it has {metric} twice")
        out.setdefault(case, {})[metric] = Measured(value, int(data.get("seen", 1)), int(data.get("of", 1)))
    return out
