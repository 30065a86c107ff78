"""The data pipeline of SkyReels-A2 (arXiv 2504.02436, section 2.4): its stages in order, and profiles of models for them."""

from collections.abc import Callable

from a2data.stage import Stage
from stages.active_speaker import ActiveSpeaker
from stages.background import Background
from stages.caption.stage import Caption
from stages.curate import Curate
from stages.detect import Detect
from stages.embed import Embed
from stages.faces import Faces
from stages.ground import Ground
from stages.ingest import Ingest
from stages.listen import Listen
from stages.logos import Logos
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
        Logos(),
        Score(),
        Listen(),
        Select(),
        Embed(),
        Detect(),
        Faces(),
        ActiveSpeaker(),
        Parse(),
        Background(),
        Caption(),
        Ground(),
        Match(),
        Retrieve(),
        Curate(),
        Pack(),
    ]


def small() -> list[Stage]:
    """Laptop, any use: RF-DETR for things with names, YuNet and SFace, a small Qwen3-VL and CLIP; the rest as in builtin."""
    return _with(
        Detect(model="rf-detr-seg-small"),
        Faces(model="yunet-sface"),
        Caption(captioner="qwen3-vl-2b"),
        Match(model="ViT-B-32"),
    )


def production() -> list[Stage]:
    """GPU nodes, any use: the strongest permissively licensed model of each kind."""
    return _with(
        Score(quality_models="laion-aesthetic,falconsai-nsfw"),
        Select(min_aesthetic=3.5, max_nsfw=0.5),
        Detect(model="rf-detr-seg-large", mask_model="sam2.1-hiera-large"),
        Faces(model="yunet-sface"),
        Parse(model="bodypix"),
        Caption(captioner="skycaptioner-v1"),
        Ground(model="llmdet_large", mask_model="sam2.1-hiera-large"),
        Match(model="PE-Core-L-14-336"),
    )


def research() -> list[Stage]:
    """GPU nodes, research use: production with YOLO (AGPL), insightface's packs and Sapiens (both non-commercial)."""
    return _with(
        Detect(model="yolo26x-seg", mask_model="sam2.1-hiera-large"),
        Faces(model="buffalo_l"),
        Parse(model="sapiens-seg-1b"),
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
    "research": research,
}


IMPORTED = "imported"  # profile of a work folder that `a2data import` made; not one to choose


def triplets(profile: str = "builtin") -> list[Stage]:
    """Return the stages of a profile, in order."""
    if profile == IMPORTED:
        from pipelines.imported import stages  # with the models' code, which other profiles do not need here

        return [
            *(
                stages.Ingest(),
                stages.Segment(),
                Listen(vad_model=""),
                stages.Select(),
                Embed(),
                stages.Detect(),
                stages.Faces(),
                stages.Parse(),
            ),
            *(
                stages.Background(),
                stages.Ground(),
                stages.Caption(),
                stages.Match(),
                stages.Retrieve(),
                Curate(),
                Pack(),
            ),
        ]
    return PROFILES[profile]()
