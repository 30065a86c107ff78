"""Shards of format 2, encoded by their description alone: no code of the package, so that its reader is held to something."""

import base64
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

KEY = "old-00000000"
MASK = np.zeros((32, 48), bool)
MASK[8:24, 16:32] = True
ROWS = [8 * 48 + 16, *([16, 32] * 15), 16, 8 * 48 + 16]  # zeros, ones, zeros … in the order of the rows
RED, GREY = (220, 40, 40), (120, 120, 120)


def number(n: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first; the eighth says that more follow."""
    return bytes([n]) if n < 128 else bytes([n % 128 + 128]) + number(n // 128)


def png(picture: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return data.getvalue()


def sample(film: bytes, frames: int = 14) -> dict[str, bytes]:
    """Extension -> bytes: a red square on grey, of which another clip has a picture; no picture of the place."""
    mask = base64.b64encode(b"".join(number(n) for n in (32, 48, *ROWS))).decode()
    box, whole = [16.0, 8.0, 32.0, 24.0], [0.0, 0.0, 48.0, 32.0]
    target = {"frame": 0, "source_frame": 0, "box": box, "source_box": box, "mask": mask}
    origin = {
        "video_id": "other", "path": "films/other.mp4", "license": "CC0-1.0", "source": "drawn", "clip_id": "other-0",
        "element_id": "other-0/object/0", "parent_id": "", "label": "square", "attributes": [], "frame": 3, "source_frame": 3,
        "pts_s": 0.2, "box": box, "source_box": box, "width": 48, "height": 32, "mask": mask, "score": 1, "quality": 0.5,
        "embedder": "", "image_sha256": "0" * 16,
    }  # fmt: skip
    rules = [
        {"name": "margin", "value": "inf", "low": 0.1, "high": "inf"},
        {"name": "overlap_s", "value": "-inf", "low": "-inf", "high": 0.0},
    ]
    given = {
        "name": "ref0", "role": "object", "phrase": "a red square", "start": 0, "end": 12, "element_id": f"{KEY}/object/0",
        "identity": 0, "similarity": 0.9, "copy_risk": 0.1, "same_clip": False, "rules": rules, "origin": origin,
        "target": target,
    }  # fmt: skip
    unpaired = {
        "element_id": f"{KEY}/object/1",
        "kind": "object",
        "phrase": "grey",
        "start": 16,
        "end": 20,
        "target": target,
    }
    prompt = "a red square on grey"
    caption = {
        "clip_id": KEY, "prompt": prompt, "subjects": [], "shot_type": "", "shot_angle": "", "shot_position": "",
        "camera_motion": "", "environment": "", "environment_start": 0, "environment_end": 0, "lighting": "", "answers": [],
    }  # fmt: skip
    about = {
        "format": "a2data-triplet/2", "prompt": prompt, "clip_id": KEY, "video_id": "old", "path": "films/old.mp4",
        "license": "CC0-1.0", "source": "drawn", "label": "", "shot": 0, "frames": frames, "fps": 15.0, "width": 48, "height": 32,
        "crop": whole, "source_frames": [*range(frames)], "source_pts_s": [n / 15 for n in range(frames)], "caption": caption,
        "references": [given], "unpaired": [unpaired], "made_by": [],
    }  # fmt: skip
    rgba = np.full((16, 16, 4), (*RED, 255), np.uint8)
    white = np.full((32, 48, 3), 255, np.uint8)
    white[MASK] = RED
    text = json.dumps(about, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return {"json": text, "mp4": film, "ref0.png": png(white), "ref0.rgba.png": png(rgba)}


def make(folder: Path, film: bytes, name: str = "00000-000.tar") -> dict[str, bytes]:
    """Write a folder of one sample as the last version of the package that wrote format 2 did; return its members."""
    import hashlib

    members = sample(film)
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
        for extension in sorted(members):
            header = tarfile.TarInfo(f"{KEY}.{extension}")
            header.size = len(members[extension])
            tar.addfile(header, io.BytesIO(members[extension]))
        size = tar.offset
    data = (folder / name).read_bytes()
    row = {
        "clip_id": KEY, "shard": name, "shard_sha256": hashlib.sha256(data).hexdigest(), "offset": 0, "bytes": size,
        "members": sorted(members), "frames": 14, "height": 32, "width": 48, "fps": 15.0, "roles": ["object"],
        "license": "CC0-1.0", "copy_risk": 0.1, "split": "", "component": "",
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), folder / "index.parquet")
    index = (folder / "index.parquet").read_bytes()
    shard = {"name": name, "samples": 1, "bytes": len(data), "sha256": row["shard_sha256"]}
    told = {
        "about": {}, "format": "webdataset", "samples": 1, "frames": 14, "licenses": {"CC0-1.0": 1}, "roles": {"object": 1},
        "index": {"bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()}, "shards": [shard],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(told))
    return members
