"""The data pipeline of SkyReels-A2 (arXiv 2504.02436, section 2.4), top to bottom."""

from collections.abc import Callable

from a2data.stage import Stage
from stages.background import Background
from stages.caption import Caption
from stages.detect import Detect
from stages.faces import Faces
from stages.ground import Ground
from stages.ingest import Ingest
from stages.match import Match
from stages.pack import Pack
from stages.parse import Parse
from stages.retrieve import Retrieve
from stages.score import Score
from stages.segment import Segment
from stages.select import Select


def builtin() -> list[Stage]:
    """CPU, nothing fetched at run time, permissive licences: the weights come inside ordinary packages."""
    return [
        Ingest(),
        Segment(),
        Score(),
        Select(),
        Detect(),
        Faces(),
        Parse(),
        Background(),
        Caption(),
        Ground(),
        Match(),
        Retrieve(),
        Pack(),
    ]


def small() -> list[Stage]:
    """A laptop: YOLO11n-seg (AGPL) and insightface's buffalo_s (non-commercial), which must be on this machine."""
    return _with_experts(Detect(model="yolo11n-seg"), Faces(model="buffalo_s"))


def production() -> list[Stage]:
    """GPU nodes: YOLO11x-seg (AGPL) and insightface's buffalo_l (non-commercial), which must be on every node."""
    return _with_experts(Detect(model="yolo11x-seg"), Faces(model="buffalo_l"))


def _with_experts(*experts: Stage) -> list[Stage]:
    by_name = {stage.name(): stage for stage in experts}
    return [by_name.get(stage.name(), stage) for stage in builtin()]


PROFILES: dict[str, Callable[[], list[Stage]]] = {"builtin": builtin, "small": small, "production": production}


def triplets(profile: str = "builtin") -> list[Stage]:
    """The stages of a profile, in order."""
    return PROFILES[profile]()
