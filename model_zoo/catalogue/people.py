"""Models of people: faces, garments and other parts, mattes."""

from dataclasses import replace

from model_zoo.roles import Card

INSIGHTFACE = Card(
    "faces",
    "model_zoo.faces.dlib_insightface:insightface_faces",
    code_license="MIT",
    weights_license="non-commercial research only",
    use="non-commercial",
    extra="faces",
    fallback="yunet-sface",
    input="640 x 640 letterboxed BGR for faces, 112 x 112 aligned RGB for who they are, -1 to 1",
    gpus=0.25,
    match_threshold=0.45,  # of ArcFace at full size; small MobileFaceNets need more (strangers reach 0.59)
)

PACKS = "url:https://github.com/deepinsight/insightface/releases/download/v0.7"

# 1024 x 768, height first: a crop of one person, stretched to 3:4.
SAPIENS = Card(
    "parse",
    "model_zoo.parse.sapiens_segformer:sapiens",
    revision="main",
    code_license="CC-BY-NC-4.0",
    weights_license="CC-BY-NC-4.0",
    use="non-commercial",
    extra="transformers",
    fallback="bodypix",
    input="1024 x 768 of a person, stretched, RGB, the training pictures' mean and deviation",
)
SAPIENS2 = replace(
    SAPIENS,
    builder="model_zoo.parse.sapiens_segformer:sapiens2",
    files=("*.json", "model*.safetensors"),  # the repositories hold the weights a second time under the authors' names
    code_license="Apache-2.0",
    weights_license="Sapiens2 License",
    use="biometric-restricted",  # forbids biometric processing: do not combine with face embeddings
    input="1024 x 768 of a person, stretched, RGB, ImageNet's mean and deviation",
)
MOBILEFACENET = "https://github.com/foamliu/MobileFaceNet/raw/a6cc9032a659b615f477833e1a70b5e7931bcccc"

YUNET = Card(
    "faces",
    "model_zoo.faces.yunet:yunet",
    weights="hf:opencv/face_detection_yunet/face_detection_yunet_2023mar.onnx",
    revision="3cc26e7f1014a5ee5d74a42acee58bafc9d0a310",
    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    weights_license="MIT",
    input="at most 640 px on the longer side, BGR, 0 to 255",
    memory_mb=150,
    match_threshold=0.363,  # its authors' threshold, for single pictures
    companions=("sface",),
)

MEDIAPIPE = Card(
    "network",
    "model_zoo.mediapipe.network:network",
    code_license="Apache-2.0",
    weights_license="Apache-2.0",
    extra="builtin",
    memory_mb=60,
)


def mediapipe(path: str, sha256: str, sees: str, size_mb: int = 0) -> Card:
    """Return the card of a network inside the package mediapipe, whose later versions have none."""
    source = f"pypi:mediapipe==0.10.21!mediapipe/modules/{path}.tflite"
    return replace(MEDIAPIPE, weights=source, sha256=sha256, input=sees, size_mb=size_mb)


CARDS: dict[str, Card] = {
    "mediapipe-face-detection": mediapipe(
        "face_detection/face_detection_full_range_sparse",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
        "192 x 192, RGB, -1 to 1",
        1,
    ),
    "mediapipe-face-mesh": mediapipe(
        "face_landmark/face_landmark",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
        "192 x 192 of a face, eyes level, RGB, 0 to 1",
        1,
    ),
    "mediapipe-pose-detection": mediapipe(
        "pose_detection/pose_detection",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        "224 x 224, RGB, -1 to 1",
        3,
    ),
    "mediapipe-pose-landmark": mediapipe(
        "pose_landmark/pose_landmark_full",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        "256 x 256 of a person, upright, RGB, 0 to 1",
        6,
    ),
    "mediapipe-selfie": mediapipe(
        "selfie_segmentation/selfie_segmentation",
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        "256 x 256, stretched, RGB, 0 to 1",
    ),
    "mediapipe-mouth": Card(
        "mouth",
        "model_zoo.faces.mouth:mouth",
        extra="builtin",
        companions=("mediapipe-face-detection", "mediapipe-face-mesh"),
    ),
    "dlib": Card(
        "faces",
        "model_zoo.faces.dlib_insightface:dlib_faces",
        revision="3",
        code_license="BSL-1.0",
        weights_license="CC0-1.0",
        extra="builtin",
        companions=("mediapipe-face-detection", "mediapipe-face-mesh"),
        # of clip means; its descriptors are not centred: two of seven people had at most 0.96, one person at least 0.97
        match_threshold=0.97,
    ),
    "insightface": INSIGHTFACE,
    # The published packs, by folder name.
    "antelopev2": replace(
        INSIGHTFACE,
        weights=f"{PACKS}/antelopev2.zip",
        sha256="8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
        size_mb=407,
        memory_mb=1500,
    ),
    "buffalo_l": replace(
        INSIGHTFACE,
        weights=f"{PACKS}/buffalo_l.zip",
        sha256="80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
        size_mb=326,
        memory_mb=1500,
    ),
    "buffalo_s": replace(
        INSIGHTFACE,
        weights=f"{PACKS}/buffalo_s.zip",
        sha256="d85a87f503f691807cd8bb97128bdf7a0660326cd9cd02657127fa978bab8b5e",
        size_mb=159,
        memory_mb=800,
    ),
    # Trained on WIDER FACE; its companion recogniser on MS1M, which its publisher has withdrawn.
    "retinaface": Card(
        "faces",
        "model_zoo.faces.retinaface:retinaface",
        weights=f"url:{MOBILEFACENET}/retinaface/weights/mobilenet0.25_Final.pth",
        sha256="2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
        weights_license="MIT",
        extra="faces",
        fallback="yunet-sface",
        input="at most 640 px on the longer side, BGR less 104, 117, 123",
        size_mb=2,
        memory_mb=300,
        match_threshold=0.7,  # clip means: two of five people at most 0.58, one person at least 0.79
        companions=("mobilefacenet",),
    ),
    "mobilefacenet": Card(
        "recognise",
        "model_zoo.faces.recognise:arcface",
        weights=f"url:{MOBILEFACENET}/weights/MobileFaceNet.onnx",
        sha256="b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507",
        weights_license="Apache-2.0",
        extra="faces",
        fallback="sface",
        input="112 x 112 aligned RGB, -1 to 1",
        size_mb=4,
        memory_mb=100,
        match_threshold=0.7,
    ),
    "yunet-sface": YUNET,
    # The same network for inputs of any size, for an OpenCV whose inference is ONNX Runtime.
    "yunet-2026may": replace(
        YUNET,
        weights="url:https://github.com/opencv/opencv_zoo/raw/26cc381e4d2594bb9f47a26eb8fd96c94a13660d/models/"
        "face_detection_yunet/face_detection_yunet_2026may.onnx",
        revision="1",
        sha256="ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
    ),
    "sface": Card(
        "recognise",
        "model_zoo.faces.recognise:sface",
        weights="hf:opencv/face_recognition_sface/face_recognition_sface_2021dec.onnx",
        revision="3d7082438a6e4551e840c9b2bb60b71e8da4b524",
        sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        weights_license="Apache-2.0",
        input="112 x 112 aligned BGR, 0 to 255",
        size_mb=39,
        memory_mb=150,
        match_threshold=0.363,
    ),
    "builtin-parse": Card(
        "parse",
        "model_zoo.parse.builtin:parser",
        revision="3",
        companions=("mediapipe-face-detection", "mediapipe-face-mesh", "mediapipe-pose-landmark"),
    ),
    "sapiens-seg-0.3b": replace(
        SAPIENS,
        weights="hf:facebook/sapiens-seg-0.3b-torchscript/"
        "sapiens_0.3b_goliath_best_goliath_mIoU_7673_epoch_194_torchscript.pt2",
        size_mb=1360,
        memory_mb=3000,
        gpus=0.25,
    ),
    "sapiens-seg-0.6b": replace(
        SAPIENS,
        weights="hf:facebook/sapiens-seg-0.6b-torchscript/"
        "sapiens_0.6b_goliath_best_goliath_mIoU_7777_epoch_178_torchscript.pt2",
        size_mb=2690,
        memory_mb=5000,
        gpus=0.25,
    ),
    "sapiens-seg-1b": replace(
        SAPIENS,
        weights="hf:facebook/sapiens-seg-1b-torchscript/"
        "sapiens_1b_goliath_best_goliath_mIoU_7994_epoch_151_torchscript.pt2",
        revision="3c0d2993dcdadd57972746b1d58af78b917c64b7",
        size_mb=4720,
        memory_mb=8000,
        gpus=0.5,
    ),
    "sapiens2-seg-0.4b": replace(
        SAPIENS2, weights="hf:facebook/sapiens2-seg-0.4b", size_mb=1600, memory_mb=2000, gpus=0.25
    ),
    "sapiens2-seg-0.8b": replace(
        SAPIENS2, weights="hf:facebook/sapiens2-seg-0.8b", size_mb=3300, memory_mb=3000, gpus=0.25
    ),
    "sapiens2-seg-1b": replace(SAPIENS2, weights="hf:facebook/sapiens2-seg-1b", size_mb=5900, memory_mb=5000, gpus=0.5),
    "sapiens2-seg-5b": replace(
        SAPIENS2, weights="hf:facebook/sapiens2-seg-5b", size_mb=20300, memory_mb=14000, gpus=1.0
    ),
    "segformer-clothes": Card(
        "parse",
        "model_zoo.parse.sapiens_segformer:segformer",
        weights="hf:mattmdjaga/segformer_b2_clothes",
        revision="main",
        weights_license="MIT",  # as tagged; based on nvidia/mit-b2, licensed for research and evaluation only
        use="non-commercial",
        extra="transformers",
        fallback="bodypix",
        input="512 x 512, stretched, RGB, ImageNet's mean and deviation",
        size_mb=110,
        memory_mb=600,
        gpus=0.1,
    ),
    "bodypix": Card(
        "parse",
        "model_zoo.parse.bodypix:bodypix",
        weights="url:https://github.com/google-coral/project-bodypix/raw/a46c428d729741c82f64550d742b2c65fe92999b/models/"
        "bodypix_mobilenet_v1_075_720_1280_16_quant.tflite",
        sha256="6abaed4ad9080cafd327d0f03fd23f0c46d4409b75b6e23abde9a35582067696",
        weights_license="Apache-2.0",
        extra="bodypix",
        fallback="builtin-parse",
        input="1280 x 720 letterboxed, height first, RGB, -1 to 1 as bytes",
        size_mb=2,
        memory_mb=200,
    ),
    "sapiens2-matting-1b": replace(
        SAPIENS2,
        role="matte",
        builder="model_zoo.parse.matting:sapiens2",
        weights="hf:facebook/sapiens2-matting-1b",
        fallback="",
        size_mb=5900,
        memory_mb=6000,
        gpus=0.5,
    ),
}
