"""What a training needs before its first step: settings that make sense, encoders, encoded samples, an optimiser."""

from pathlib import Path
from typing import Any

from pipelines.encode import Encoding, encode, read_index
from pipelines.train.settings import Settings


def check(settings: Settings, ranks: int) -> None:
    """Raises ValueError for settings that make no sense."""
    data_ranks = max(1, ranks // settings.context)
    if settings.batch % data_ranks:
        raise ValueError(f"a batch of {settings.batch} samples cannot be divided among {data_ranks} processes")
    shares = {n: getattr(settings, n) for n in ("caption_drop", "reference_drop", "single_share")}
    wrong = [f"{name} {value}" for name, value in shares.items() if not 0 <= value <= 1]
    if wrong or min(settings.steps, settings.batch, settings.together) < 1 or not 0 <= settings.ema < 1:
        raise ValueError(
            f"settings out of range: {', '.join(wrong) or 'steps, batch and together are at least 1, ema is below 1'}"
        )


def prepare(shards: str, out: Path, encoding: Encoding, begin: Path, make: bool, device: Any) -> None:
    """What must lie ready: for tiny the encoders, for all the encoded samples. Nothing is done twice."""
    if make and not (begin / "transformer").is_dir():
        from model_zoo.a2 import tiny

        clips, captions = material(shards, encoding)
        tiny.save_start(begin, clips, captions)
        print(
            f"made {begin}: an autoencoder fitted to {len(captions)} clips, a tokenizer, encoders, a network",
            flush=True,
        )
    counts = encode(shards, str(out / "encoded"), begin, encoding, str(device))
    print(f"{counts['train']} samples to train on, {counts['held-out']} held out", flush=True)


def material(shards: str, encoding: Encoding) -> tuple[list[Any], list[str]]:
    """Clips and references, cut to size, and captions: for the tiny encoders."""
    from a2data.media import video
    from a2data.store.folder import Folder
    from model_zoo.a2 import references
    from pipelines.encode import choose, fitted, read_tar

    source = Folder(shards)
    clips: list[Any] = []
    captions: list[str] = []
    for name in sorted({row.shard for row in read_index(source)}):
        for triplet in read_tar(source, name):
            frames = video.decode(triplet.video)[: encoding.frames]
            if len(frames) < encoding.frames:
                continue
            clips.append(fitted(frames, encoding.height, encoding.width))
            for reference in choose(triplet, encoding):
                clips.append(references.prepare([reference], encoding.height, encoding.width).frames[:1])
            captions.append(triplet.prompt)
    if not clips:
        raise ValueError(f"no clip in {shards} has {encoding.frames} frames: ask for fewer with --frames")
    return clips, captions


def optimizer_of(parameters: list[Any], settings: Settings) -> Any:
    """AdamW, or its 8-bit form (Dettmers et al. 2021, arXiv 2110.02861) by torchao."""
    import torch

    how: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        # one pass over the parameters, not one for each operation
        return torch.optim.AdamW(parameters, fused=True, **how)
    if settings.optimizer != "adamw8bit":
        raise ValueError(f"no optimizer called {settings.optimizer!r}: adamw or adamw8bit")
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise ImportError("the optimizer adamw8bit needs torchao: pip install torchao") from error
    return AdamW8bit(parameters, **how)
