"""Detection models: detectors, open-vocabulary grounding, masks, trackers."""

from dataclasses import replace

from model_zoo.roles import Card

MEDIAPIPE_PEOPLE = ("mediapipe-face-detection", "mediapipe-pose-detection", "mediapipe-pose-landmark")
ASSETS = "url:https://github.com/ultralytics/assets/releases/download/v8.4.0"

YOLO = Card(
    "detect",
    "model_zoo.detect.yolo:detector",
    code_license="AGPL-3.0",
    weights_license="AGPL-3.0",
    use="copyleft",
    extra="yolo",
    fallback="rf-detr-seg-large",
    input="640 x 640 letterboxed, RGB, 0 to 1",
    memory_mb=1500,
    gpus=0.25,
)
YOLO_MB = {  # a .pt file has two bytes per parameter
    **{"yolo11n": 6, "yolo11s": 20, "yolo11m": 45, "yolo11l": 56, "yolo11x": 125},
    **{"yolo26n": 6, "yolo26s": 21, "yolo26m": 47, "yolo26l": 56, "yolo26x": 126},
}
YOLO_SHA256 = {
    "yolo11n": "55ed65c56c91713d23e8402371c6c49a6fd84f257f7dce452e8d70e41dcbe152",
    "yolo26x": "92b3de0065766a17180d6219858717dc9d03cdce8a3ca9576c97fd75aabb64f3",
}
YOLOE = replace(
    YOLO, role="ground", builder="model_zoo.detect.grounding:yoloe", fallback="llmdet_large", memory_mb=2500
)
MOBILECLIP = Card(
    "text-encoder",
    "model_zoo.detect.grounding:mobileclip",
    code_license="MIT",
    weights_license="apple-amlr",
    use="non-commercial",  # research purposes only
    extra="yolo",
    fallback="llmdet_large",  # YOLOE does not run without it
    input="77 tokens of CLIP",
    memory_mb=500,
)
DETR = Card(
    "detect",
    "model_zoo.detect.detr:detector",
    revision="main",
    weights_license="Apache-2.0",
    extra="transformers",
    input="640 x 640 stretched, RGB, 0 to 1",
    memory_mb=1500,
    gpus=0.25,
)
RF_DETR = {  # name -> (side of the input in px, MB)
    **{"nano": (384, 122), "small": (512, 128), "medium": (576, 135), "large": (704, 136)},
    **{"seg-nano": (312, 134), "seg-small": (384, 135), "seg-medium": (432, 143), "seg-large": (504, 145)},
}
RF_DETR_COMMITS = {"medium": "1b5b672408f86dd38e05dd3cf3f2e0834e545a59"}
GROUNDING_DINO = Card(
    "ground",
    "model_zoo.detect.grounding:grounding_dino",
    revision="main",
    weights_license="Apache-2.0",
    extra="transformers",
    input="800 px on the shorter side, 1333 at most on the longer, RGB, ImageNet's mean and deviation; up to 256 tokens",
    memory_mb=4000,
    gpus=0.5,
)
SAM = Card(
    "masks",
    "model_zoo.detect.sam:masks",
    revision="main",
    weights_license="Apache-2.0",
    extra="transformers",
    input="1024 x 1024 stretched, RGB, ImageNet's mean and deviation",
    memory_mb=3000,
    gpus=0.25,
)
TRACKER = Card(
    "track",
    "model_zoo.detect.trackers:bytetrack",
    code_license="AGPL-3.0",
    use="copyleft",
    extra="track",
    input="boxes and scores",
)

CARDS: dict[str, Card] = {
    "builtin-detect": Card(
        "detect",
        "model_zoo.detect.builtin.detector:detector",
        revision="2",
        extra="builtin",
        grown_from_colour=True,
        memory_mb=150,
        companions=MEDIAPIPE_PEOPLE,
    ),
    "yolo": YOLO,
    **{
        f"{n}-seg": replace(YOLO, weights=f"{ASSETS}/{n}-seg.pt", sha256=YOLO_SHA256.get(n, ""), size_mb=mb)
        for n, mb in YOLO_MB.items()
    },
    "detr": DETR,
    **{
        f"rf-detr-{name}": replace(
            DETR,
            weights=f"hf:Roboflow/rf-detr-{name}",
            revision=RF_DETR_COMMITS.get(name, "main"),
            input=f"{side} x {side} stretched, RGB, ImageNet's mean and deviation",
            size_mb=mb,
        )
        for name, (side, mb) in RF_DETR.items()
    },
    "rtdetr_v2_r50vd": replace(DETR, weights="hf:PekingU/rtdetr_v2_r50vd", size_mb=172),
    "dfine-large-coco": replace(DETR, weights="hf:ustc-community/dfine-large-coco", size_mb=126),
    "dfine-xlarge-obj2coco": replace(DETR, weights="hf:ustc-community/dfine-xlarge-obj2coco", size_mb=252),
    "yoloe": YOLOE,
    "yoloe-11l-seg": replace(YOLOE, weights=f"{ASSETS}/yoloe-11l-seg.pt", size_mb=70, companions=("mobileclip-blt",)),
    "yoloe-26l-seg": replace(YOLOE, weights=f"{ASSETS}/yoloe-26l-seg.pt", size_mb=80, companions=("mobileclip2-b",)),
    "mobileclip-blt": replace(MOBILECLIP, weights=f"{ASSETS}/mobileclip_blt.ts", size_mb=600),
    "mobileclip2-b": replace(MOBILECLIP, weights=f"{ASSETS}/mobileclip2_b.ts", size_mb=250),
    "grounding-dino": GROUNDING_DINO,
    "grounding-dino-tiny": replace(GROUNDING_DINO, weights="hf:IDEA-Research/grounding-dino-tiny", size_mb=690),
    "mm_grounding_dino_tiny": replace(
        GROUNDING_DINO, weights="hf:openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det", size_mb=690
    ),
    "mm_grounding_dino_large": replace(
        GROUNDING_DINO, weights="hf:openmmlab-community/mm_grounding_dino_large_all", size_mb=1380, memory_mb=6000
    ),
    "llmdet_large": replace(
        GROUNDING_DINO,
        weights="hf:iSEE-Laboratory/llmdet_large",
        revision="bec37f296f05b22f6c6b39bc05a6c611239f4e31",
        size_mb=1380,
        memory_mb=6000,
    ),
    "sam": SAM,
    "sam2.1-hiera-tiny": replace(SAM, weights="hf:facebook/sam2.1-hiera-tiny", size_mb=156, memory_mb=2000),
    "sam2.1-hiera-large": replace(
        SAM, weights="hf:facebook/sam2.1-hiera-large", revision="665f8e2ad61cf5f53d65644ff27c8ee525124610", size_mb=898
    ),
    "sam3": replace(
        SAM,
        weights="hf:facebook/sam3",
        revision="3c879f39826c281e95690f02c7821c4de09afae7",
        weights_license="SAM License",  # commercial use allowed, military use not
        use="gated",
        fallback="sam2.1-hiera-large",
        input="1008 x 1008 stretched, RGB, -1 to 1",
        size_mb=3440,
        memory_mb=6000,
        gpus=0.5,
    ),
    "bytetrack": TRACKER,
    "botsort": replace(TRACKER, builder="model_zoo.detect.trackers:botsort"),
}
