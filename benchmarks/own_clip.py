"""Why references come from other clips: the preset tiny trained with either kind, and asked with both.

    OMP_NUM_THREADS=1 python -m benchmarks.own_clip demo/work [--seeds 0 1 2] [--steps N] [--out DIR]

Two data sets of the same triplets: references from other clips, as the run paired them, and the clip's own pictures of the same
elements, as `pack.allow_same_clip` takes them. Encoders and the network to begin with are the same, and so are seeds, draws and
held-out clips. Printed is each network's loss on the held-out clips with references of either kind: what a model that was trained
on own pictures loses when it is asked with a picture of another day is what it learnt by copying.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from a2data import samples, shards
from a2data.folder import Folder
from a2data.records import Packed
from benchmarks.tiny_training import interval
from pipelines.cli import main as a2data
from pipelines.encode import read_tar
from pipelines.training.settings import PRESETS

KINDS = ("other clips", "own clip")
ROLES = "human|object|background"
NOBODY = ("--set", "retrieve.min_quality=2", "--set", "pack.allow_same_clip=true")  # pack takes what is left: its own


def main() -> None:
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("work", type=Path)
    asked.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked.add_argument("--steps", type=int)
    asked.add_argument("--out", type=Path)
    args = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or Path(folder)
        sets = data_sets(args.work, out)
        found = {(kind, seed): trained(sets, kind, out, seed, args.steps) for seed in args.seeds for kind in KINDS}
    show(found, args.seeds)


def home(out: Path, kind: str) -> Path:
    """The folder of what is made with references of a kind."""
    return out / kind.replace(" ", "-")


def data_sets(work: Path, out: Path) -> dict[str, Path]:
    """Folders of shards with the same triplets and references, by where the pictures come from."""
    triplets = {}
    for kind, more in zip(KINDS, ((), NOBODY), strict=True):
        mine = home(out, kind)
        shutil.copytree(work, mine / "work", ignore=shutil.ignore_patterns("shards", "report.html"))
        flags = ["--set", f"pack.roles={ROLES}", "--set", f"pack.require={ROLES}", *more]
        if a2data(["run", "--work", str(mine / "work"), "--out", str(mine / "packed"), "--quiet", *flags]):
            raise SystemExit(f"the run in {mine / 'work'} did not succeed")
        source = Folder(str(mine / "packed"))
        triplets[kind] = {
            t.facts.clip_id: t
            for name in sorted({row.shard for row in shards.rows(source)})
            for t in read_tar(source, name)
        }
    both = sorted(triplets[KINDS[0]].keys() & triplets[KINDS[1]].keys())
    for kind in KINDS:
        other = KINDS[1 - KINDS.index(kind)]
        alike = [
            made for clip in both if (made := limited(triplets[kind][clip], triplets[other][clip])).facts.references
        ]
        write(alike, home(out, kind) / "shards")
    return {kind: home(out, kind) / "shards" for kind in KINDS}


def limited(triplet: samples.Triplet, other: samples.Triplet) -> samples.Triplet:
    """A triplet with those references alone that stand for what another one's stand for, too."""
    there = {given.element_id for given in other.facts.references}
    kept = [given for given in triplet.facts.references if given.element_id in there]
    names = {given.name for given in kept}
    return samples.Triplet(
        replace(triplet.facts, references=kept),
        triplet.video,
        {name: data for name, data in triplet.pictures.items() if name in names},
        {name: data for name, data in triplet.cut_outs.items() if name in names},
    )


def write(triplets: list[samples.Triplet], folder: Path) -> None:
    placed = shards.write(((t.facts.clip_id, samples.to_members(t)) for t in triplets), Folder(str(folder)), 0)
    packed = [Packed(*place, *described(triplet)) for place, triplet in zip(placed, triplets, strict=True)]
    shards.finish(Folder(str(folder)), packed, {})


def described(triplet: samples.Triplet) -> Iterator[Any]:
    """What an index says of a triplet."""
    facts = triplet.facts
    risk = max(given.copy_risk for given in facts.references)
    yield from (facts.frames, facts.height, facts.width, facts.fps)
    yield from ([given.role for given in facts.references], facts.license, risk)


def trained(sets: dict[str, Path], kind: str, out: Path, seed: int, steps: int | None) -> dict[str, np.ndarray]:
    """Train on one data set. Returns kind -> the loss on each held-out clip, shown references of that kind."""
    from pipelines.train import train

    encoding, settings = PRESETS["tiny"]
    settings = replace(settings, seed=seed, steps=steps or settings.steps)
    for each in (kind, *KINDS):  # both are encoded, by the encoders that were made first
        mine = home(out, each) / f"seed-{seed}"
        first = next(out.glob("*/seed-*/start"), None)
        if first and not (mine / "start").exists():
            shutil.copytree(first, mine / "start")
        before = next(home(out, each).glob("seed-*/encoded"), None)
        if before and not (mine / "encoded").exists():
            shutil.copytree(before, mine / "encoded")
        if each == kind:
            train(str(sets[each]), mine, encoding, settings)
        elif not (mine / "encoded").exists():
            from pipelines.training.prepare import prepare

            prepare(str(sets[each]), mine, encoding, mine / "start", True, "cpu")
    ended = home(out, kind) / f"seed-{seed}"
    return {each: losses(ended / "model", home(out, each) / f"seed-{seed}", encoding) for each in KINDS}


def losses(model: Path, mine: Path, encoding: Any) -> np.ndarray:
    """The loss of a trained network on each held-out clip of a folder of encoded samples, in the order of their names."""
    import torch
    from diffusers import WanTransformer3DModel
    from safetensors.torch import load_file

    from a2data.batches import draw
    from a2data.loader import Loader
    from model_zoo import a2_padding
    from model_zoo.flow_matching import LEVELS
    from pipelines.encode import clip_of
    from pipelines.training import examples

    network = WanTransformer3DModel.from_pretrained(model / "transformer", local_files_only=True).eval()
    a2_padding.shorten(network)
    nothing = load_file(mine / "encoded" / "no_references.safetensors")["condition"]
    bucket = (encoding.frames, encoding.height, encoding.width)
    common: dict[str, Any] = {"view": "encoded", "index": "index.parquet", "buckets": [bucket]}
    loader = Loader(str(mine / "encoded" / "held-out"), seed=0, global_batch=1, **common)
    stream, by_clip = iter(loader), dict[str, list[float]]()
    for _ in range(len(shards.rows(Folder(str(mine / "encoded" / "held-out"))))):
        sample = next(stream)[0]
        told = [
            examples.made(
                sample.tensors,
                nothing,
                level,
                draw(0, 0, sample.key, f"held out {n}"),
                "reference",
                torch.device("cpu"),
            )
            for n, level in enumerate(LEVELS)
        ]
        for one in told:
            one.counts[: examples.slots_of(sample.tensors["condition"][None])] = False  # frames that show references
        with torch.no_grad():
            by_clip.setdefault(clip_of(sample.key), []).append(float(examples.losses(network, told, "float32").mean()))
    return np.array([np.mean(by_clip[clip]) for clip in sorted(by_clip)])


def show(found: dict[tuple[str, int], dict[str, np.ndarray]], seeds: list[int]) -> None:
    print("                       held-out loss with references of")
    print(f"seed  trained with     {KINDS[0]:>12} {KINDS[1]:>12}  dearer with other clips'")
    for (kind, seed), by_kind in found.items():
        other, own = (float(by_kind[each].mean()) for each in KINDS)
        print(f"{seed:4d}  {kind:14}   {other:12.4f} {own:12.4f}  {other / own - 1:+8.1%}")
    mean = {kind: np.mean([found[kind, seed][KINDS[0]] for seed in seeds], 0) for kind in KINDS}
    middle, half = interval(mean[KINDS[1]] / mean[KINDS[0]] - 1)
    print(
        f"asked with other clips' references, the one trained on own pictures has a loss {middle:+.1%} larger "
        f"(95 % over {len(mean[KINDS[0]])} held-out clips {middle - half:+.1%} … {middle + half:+.1%})"
    )


if __name__ == "__main__":
    main()
