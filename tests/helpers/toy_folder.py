"""The command line over work folders of the toy pipeline, and what it leaves in their folders of shards."""

import hashlib
import json
import shutil
from pathlib import Path

import toy_pairs

from a2data.dataset import writer
from a2data.store.folder import Folder
from a2data.store.tables import Store
from pipelines.cli import main as cli

# who is in which clip of a video
KNOWN = {"aa11": "anna bert", "bb22": "anna", "cc33": "bert", "dd44": "anna carl", "ee55": "carl", "gg77": "carl " * 4}
PEOPLE = {video: KNOWN[video] for video in ("aa11", "bb22", "cc33")}  # four triplets in two tars
OTHERS = {video: KNOWN[video] for video in ("dd44", "ee55")}  # two triplets in one tar


def stages(profile="builtin"):
    return toy_pairs.stages(Store("/nowhere"), KNOWN)


def a2data(*words) -> int:
    return cli.main([*map(str, words), "--in-process", "--quiet"])


def run(work, out=None, *more) -> int:
    return a2data("run", "--work", work, *(("--out", out) if out else ()), *more)


def restored(whole: Path) -> Path:
    """Put a copy of a finished work folder where it was made: anywhere else its shards would be packed once more."""
    home = whole.with_name("w")
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(whole, home)
    return home


def tars(out) -> dict[str, str]:
    folder = Folder(str(out))
    return {n: hashlib.sha256(folder.get(n)).hexdigest() for n in folder.names() if n.endswith(".tar")}


def manifest(out) -> dict:
    return json.loads(Folder(str(out)).get("manifest.json"))


def readable(out) -> list[str]:
    """The clips of the index, each found in its tar where the index says that it is."""
    folder, clips = Folder(str(out)), []
    for row in writer.rows(folder):
        with folder.reading(row.shard) as file:
            file.seek(row.offset)
            assert file.read(len(row.clip_id)).decode() == row.clip_id
        clips.append(row.clip_id)
    return clips


def fail_captions(monkeypatch) -> None:
    def nonsense(*_):
        raise ValueError("the captioner's answer is not JSON")

    monkeypatch.setattr(toy_pairs.Captions, "run", nonsense)
    monkeypatch.setattr(toy_pairs.Captions, "version", 2)
