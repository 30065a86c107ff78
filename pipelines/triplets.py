"""The data pipeline of SkyReels-A2 (arXiv 2504.02436, section 2.4): its stages in order, and profiles of models for them."""

from collections.abc import Callable

from a2data.stage import Stage
from stages.background import Background
from stages.caption.stage import Caption
from stages.detect import Detect
from stages.faces import Faces
from stages.ground import Ground
from stages.ingest import Ingest
from stages.match import Match
from stages.pack.stage import Pack
from stages.parse import Parse
from stages.retrieve.stage import Retrieve
from stages.score import Score
from stages.segment.stage import Segment
from stages.select import Select


def builtin() -> list[Stage]:
    """CPU, no downloads at run time, permissive licences: the weights are included in ordinary packages."""
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
    """Laptop, research use: YOLO11n (AGPL), insightface's buffalo_s (non-commercial), SegFormer, CLIP, a small Qwen3-VL."""
    return _with(
        Detect(model="yolo11n-seg"),
        Faces(model="buffalo_s"),
        Parse(model="segformer-clothes"),
        Caption(captioner="qwen3-vl-2b"),
        Match(model="ViT-B-32"),
    )


def production() -> list[Stage]:
    """GPU nodes, research use: the strongest model of each kind (YOLO is AGPL, insightface and Sapiens are non-commercial)."""
    return _with(
        Score(quality_models="laion-aesthetic,falconsai-nsfw"),
        Select(min_aesthetic=3.5, max_nsfw=0.5),
        Detect(model="yolo26x-seg", mask_model="sam2.1-hiera-large"),
        Faces(model="buffalo_l"),
        Parse(model="sapiens-seg-1b"),
        Caption(captioner="skycaptioner-v1"),
        Ground(model="llmdet_large", mask_model="sam2.1-hiera-large"),
        Match(model="PE-Core-L-14-336"),
    )


def permissive() -> list[Stage]:
    """GPU nodes, any use: production with the best permissively licensed substitutes for models under other licences."""
    return _with(
        Detect(model="rf-detr-seg-large", mask_model="sam2.1-hiera-large"),
        Faces(model="yunet-sface"),
        Parse(model="bodypix"),
        base=production,
    )


def _with(*stages: Stage, base: Callable[[], list[Stage]] = builtin) -> list[Stage]:
    """Return the stages of a base profile, with those of the same names replaced by these."""
    by_name = {stage.name(): stage for stage in stages}
    return [by_name.get(stage.name(), stage) for stage in base()]


PROFILES: dict[str, Callable[[], list[Stage]]] = {
    "builtin": builtin,
    "small": small,
    "production": production,
    "permissive": permissive,
}


def triplets(profile: str = "builtin") -> list[Stage]:
    """Return the stages of a profile, in order."""
    return PROFILES[profile]()
