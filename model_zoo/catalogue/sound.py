"""Models of sound."""

from dataclasses import replace

from model_zoo.roles import Card

WHISPER = Card(
    "asr",
    "model_zoo.sound.whisper:whisper",
    revision="main",
    files=("*.json", "*.txt", "model.safetensors"),
    extra="transformers",
    input="16 kHz, mono, -1 to 1; 80 or 128 mel bands of 30 s",
    gpus=0.25,
)

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
    "whisper": replace(WHISPER, revision="1", files=()),
    "whisper-small": replace(
        WHISPER, weights="hf:openai/whisper-small", weights_license="Apache-2.0", size_mb=967, memory_mb=2000
    ),
    "whisper-large-v3-turbo": replace(
        WHISPER, weights="hf:openai/whisper-large-v3-turbo", weights_license="MIT", size_mb=1617, memory_mb=4000
    ),
}
