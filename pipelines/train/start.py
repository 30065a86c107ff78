"""Preparation before the first training step: encoders and encoded samples."""

from pathlib import Path
from typing import Any

from pipelines.encode import encode, read_index
from stages.encode.settings import Encoding


def prepare(shards: str, out: Path, encoding: Encoding, start: Path, create_tiny: bool, device: Any) -> None:
    """Create the tiny preset's networks in `start` if `create_tiny`, and encode the samples. Completed work is not repeated."""
    if create_tiny and not (start / "transformer").is_dir():
        from model_zoo.a2 import tiny

        clips, captions = tiny_training_data(shards, encoding)
        tiny.save_initial_checkpoint(start, clips, captions, conditioning=encoding.conditioning)
        print(
            f"created {start}: an autoencoder fitted to {len(captions)} clips, a tokenizer, encoders and a network",
            flush=True,
        )
    counts = encode(shards, str(out / "encoded"), start, encoding, str(device))
    print(f"{counts['train']} samples to train on, {counts['held-out']} held out", flush=True)


def tiny_training_data(shards: str, encoding: Encoding) -> tuple[list[Any], list[str]]:
    """Return resized clips and references, and captions, to fit the tiny encoders to."""
    from a2data.media import video
    from a2data.store.folder import Folder
    from model_zoo.a2 import references
    from stages.encode.augment import resize_frames
    from stages.encode.tensors import choose, read_tar

    source, size = Folder(shards), (encoding.height, encoding.width)
    clips: list[Any] = []
    captions: list[str] = []
    for name in sorted({row.shard for row in read_index(source)}):
        for triplet in read_tar(source, name):
            frames = video.decode(triplet.video)[: encoding.frames]
            if len(frames) < encoding.frames:
                continue
            clips.append(resize_frames(frames, encoding.height, encoding.width))
            for reference in choose(triplet, encoding):
                clips.append(references.prepare([reference], *size, encoding.conditioning).frames[:1])
            captions.append(triplet.prompt)
    if not clips:
        raise ValueError(f"no clip in {shards} has {encoding.frames} frames: lower --frames")
    return clips, captions
