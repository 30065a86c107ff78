"""What a training needs before its first step: settings that make sense, encoders, encoded samples, an optimiser."""

from pathlib import Path
from typing import Any

from pipelines.encode import Encoding, encode, read_index


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
