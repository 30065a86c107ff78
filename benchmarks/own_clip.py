"""References from other clips against references from the same clip: the tiny preset trained with each, evaluated with both.

    OMP_NUM_THREADS=1 python -m benchmarks.own_clip demo/work [WORK …] [--held-out 0.4] [--steps N] [--out DIR]

Two data sets have the same triplets: one with references from other clips, as paired by the run, and one with the clip's own
pictures of the same elements, as taken by `pack.allow_same_clip`. Encoders, initial network, seeds and held-out clips are the
same. The script prints each network's held-out loss with both kinds of references. If a network trained on own pictures loses
accuracy with pictures from other clips, it has learned to copy. The script also prints the copy-paste score of samples for
held-out clips with references from other clips: whether the video, at the position of a reference on its canvas, is nearer to the
reference (up to 1) or to the original clip (down to -1). Several work folders are pooled. An existing --out folder is resumed.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from a2data.dataset import triplet as samples
from a2data.dataset import writer
from a2data.records import Packed
from a2data.store.folder import Folder
from benchmarks import reference_use
from model_zoo.a2.checkpoint import CONDITIONINGS
from pipelines.cli.main import main as a2data
from pipelines.prefer.copying import copy_paste_score
from pipelines.statistics import student
from pipelines.train.settings import PRESETS
from stages.encode.tensors import read_tar

KINDS = ("other clips", "own clip")
ROLES = "human|object|background"
# no element qualifies as a reference, so pack falls back to the clip's own pictures
SAME_CLIP = ("--set", "retrieve.min_quality=2", "--set", "pack.allow_same_clip=true")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("works", type=Path, nargs="+", metavar="WORK")
    parser.add_argument("--conditioning", choices=CONDITIONINGS, default="a2")
    parser.add_argument("--held-out", type=float, help="fraction of held-out clips (default: that of the preset)")
    parser.add_argument(
        "--augmentations", type=int, nargs=2, help="of training and held-out clips (default: the preset's)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int)
    parser.add_argument(
        "--noises", type=int, nargs="+", default=[0, 1, 2], help="seeds of each network's samples (default: 0 1 2)"
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or Path(folder)
        sets = data_sets(args.works, out)
        found = {(kind, seed): trained(sets, kind, out, seed, args) for seed in args.seeds for kind in KINDS}
        copied = {
            (kind, seed): scores(sets[KINDS[0]], home(out, kind) / f"seed-{seed}" / "model", args.noises)
            for kind, seed in found
        }
    show(found, args.seeds)
    show_copied(copied, args.seeds)


def home(out: Path, kind: str) -> Path:
    """Return the output folder for one kind of references."""
    return out / kind.replace(" ", "-")


def data_sets(works: list[Path], out: Path) -> dict[str, Path]:
    """Make shard folders with the same triplets and elements; return them by the origin of the pictures."""
    finished = {kind: home(out, kind) / "shards" for kind in KINDS}
    if all((folder / "index.parquet").exists() for folder in finished.values()):
        return finished
    triplets: dict[str, dict[str, samples.Triplet]] = {kind: {} for kind in KINDS}
    for kind, more in zip(KINDS, ((), SAME_CLIP), strict=True):
        for number, work in enumerate(works):
            triplets[kind] |= packed(work, home(out, kind) / str(number), more)
    both = sorted(triplets[KINDS[0]].keys() & triplets[KINDS[1]].keys())
    for kind in KINDS:
        other = KINDS[1 - KINDS.index(kind)]
        alike = [
            made for clip in both if (made := limited(triplets[kind][clip], triplets[other][clip])).facts.references
        ]
        write(alike, home(out, kind) / "shards")
    return finished


def packed(work: Path, mine: Path, more: tuple[str, ...]) -> dict[str, samples.Triplet]:
    """Pack a copy of a work folder with further flags; return the triplets by clip."""
    shutil.rmtree(mine, ignore_errors=True)
    shutil.copytree(work, mine / "work", ignore=shutil.ignore_patterns("shards", "report.html"))
    flags = ["--set", f"pack.roles={ROLES}", "--set", f"pack.required_roles={ROLES}", *more]
    if a2data(["run", "--work", str(mine / "work"), "--out", str(mine / "packed"), "--quiet", "--in-process", *flags]):
        raise SystemExit(f"the run in {mine / 'work'} failed")
    source = Folder(str(mine / "packed"))
    shards = sorted({row.shard for row in writer.rows(source)})
    found = {t.facts.clip_id: t for name in shards for t in read_tar(source, name)}
    shutil.rmtree(mine)
    return found


def limited(triplet: samples.Triplet, other: samples.Triplet) -> samples.Triplet:
    """Keep only the references whose elements also have a reference in another triplet."""
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
    placed = writer.write(((t.facts.clip_id, samples.to_members(t)) for t in triplets), Folder(str(folder)), 0)
    packed = [Packed(*place, *described(triplet)) for place, triplet in zip(placed, triplets, strict=True)]
    writer.finish(Folder(str(folder)), packed, {})


def described(triplet: samples.Triplet) -> Iterator[Any]:
    """Yield the index fields of a triplet."""
    facts = triplet.facts
    risk = max(given.copy_risk for given in facts.references)
    yield from (facts.frames, facts.height, facts.width, facts.fps)
    yield from ([given.role for given in facts.references], facts.license, risk)


def trained(sets: dict[str, Path], kind: str, out: Path, seed: int, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Train on one data set; return for each kind of references the loss on each held-out clip."""
    from pipelines.train.trainer import train

    encoding, settings = PRESETS["tiny"]
    encoding = replace(encoding, conditioning=args.conditioning)
    encoding = replace(encoding, validation_fraction=args.held_out or encoding.validation_fraction)
    if args.augmentations:
        train_count, held_out_count = args.augmentations
        encoding = replace(encoding, augmentations=train_count, validation_augmentations=held_out_count)
    steps = args.steps or settings.steps
    settings = replace(settings, seed=seed, steps=steps, decay_steps=steps * 2 // 5, validate_every=steps)
    for each in (kind, *KINDS):  # both kinds are encoded with the same encoders
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
            from pipelines.train.start import prepare

            prepare(str(sets[each]), mine, encoding, mine / "start", True, "cpu")
    ended = home(out, kind) / f"seed-{seed}"
    return {each: losses(ended / "model", home(out, each) / f"seed-{seed}", encoding) for each in KINDS}


def losses(model: Path, mine: Path, encoding: Any) -> np.ndarray:
    """Return a network's loss on each held-out clip of a folder of encoded samples, ordered by name."""
    import torch
    from safetensors.torch import load_file

    from a2data.dataset.batch_plan import rng
    from a2data.dataset.loader import Loader
    from model_zoo.a2 import padding
    from model_zoo.a2.objective import LEVELS
    from model_zoo.a2.transformer import load_transformer
    from pipelines.train import examples
    from stages.encode.settings import clip_of

    network = load_transformer(model, torch.float32).eval()
    padding.merge_padding(network)
    nothing = load_file(mine / "encoded" / "no_references.safetensors")["condition"]
    bucket = (encoding.frames, encoding.height, encoding.width)
    common: dict[str, Any] = {"view": "encoded", "index": "index.parquet", "buckets": [bucket]}
    loader = Loader(str(mine / "encoded" / "held-out"), seed=0, global_batch_size=1, **common)
    stream, by_clip = iter(loader), dict[str, list[float]]()
    for _ in range(len(writer.rows(Folder(str(mine / "encoded" / "held-out"))))):
        sample = next(stream)[0]
        inputs = [
            examples.make_example(
                sample.tensors,
                nothing,
                level,
                rng(0, 0, sample.key, f"held out {n}"),
                "reference",
                torch.device("cpu"),
                conditioning=encoding.conditioning,
            )
            for n, level in enumerate(LEVELS)
        ]
        for one in inputs:
            one.loss_mask[: one.head_frames] = False  # frames that show references
        with torch.no_grad():
            by_clip.setdefault(clip_of(sample.key), []).append(
                float(examples.losses(network, inputs, "float32").mean())
            )
    return np.array([np.mean(by_clip[clip]) for clip in sorted(by_clip)])


def scores(shards_of: Path, model: Path, noises: list[int]) -> dict[str, float]:
    """Return the copy-paste score of samples for each held-out clip, with the references of these shards, mean over noises."""
    pipe = reference_use.opened(model)
    cases, held_out = reference_use.read(str(shards_of), model)
    found: dict[str, float] = {}
    for clip in sorted(held_out & set(cases)):
        prompt, frames, given = cases[clip]
        each = []
        for noise in noises:
            how = {"guidance_scale": 1.0, "num_inference_steps": 20}
            video = reference_use.sampled(pipe, given, prompt, len(frames), noise, **how)
            each.append(copy_paste_score(video, frames[-len(video) :], given.frames))
        found[clip] = float(np.mean(each))
    return found


def show(found: dict[tuple[str, int], dict[str, np.ndarray]], seeds: list[int]) -> None:
    print("                       held-out loss with references of")
    print(f"seed  trained with     {KINDS[0]:>12} {KINDS[1]:>12}  more with other clips'")
    for (kind, seed), by_kind in found.items():
        other, own = (float(by_kind[each].mean()) for each in KINDS)
        print(f"{seed:4d}  {kind:14}   {other:12.4f} {own:12.4f}  {other / own - 1:+8.1%}")
    mean = {kind: np.mean([found[kind, seed][KINDS[0]] for seed in seeds], 0) for kind in KINDS}
    middle, low, high = student(mean[KINDS[1]] / mean[KINDS[0]] - 1)
    print(
        f"with other clips' references, the loss of the network trained on own pictures is {middle:+.1%} larger "
        f"(95 % over {len(mean[KINDS[0]])} held-out clips {low:+.1%} … {high:+.1%})"
    )


def show_copied(copied: dict[tuple[str, int], dict[str, float]], seeds: list[int]) -> None:
    """Print the score of each training, and the mean difference between the two kinds over held-out clips."""
    print("copy-paste score of samples, -1: equals the clip … 1: equals the reference")
    for (kind, seed), by_clip in copied.items():
        print(f"{seed:4d}  trained with {kind:11}  {np.mean(list(by_clip.values())):+.3f}")
    clips = sorted(copied[KINDS[0], seeds[0]])
    both = {kind: np.array([np.mean([copied[kind, seed][clip] for seed in seeds]) for clip in clips]) for kind in KINDS}
    middle, low, high = student(both[KINDS[1]] - both[KINDS[0]])
    print(
        f"training on own pictures changes it by {middle:+.3f} "
        f"(95 % over {len(clips)} held-out clips {low:+.3f} … {high:+.3f})"
    )


if __name__ == "__main__":
    main()
