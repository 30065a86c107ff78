"""Models of sound."""

from model_zoo.roles import Card

CARDS: dict[str, Card] = {
    "silero-vad": Card(
        "vad",
        "model_zoo.sound.silero:silero",
        weights="pypi:silero-vad==6.2.3!silero_vad/data/silero_vad_16k_sequence.onnx",
        sha256="9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
        code_license="MIT",
        weights_license="MIT",
        extra="builtin",
        input="16 kHz, mono, -1 to 1",
        size_mb=1,
        memory_mb=60,
    ),
}
