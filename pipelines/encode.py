"""`a2data encode`: run the frozen encoders over packed triplets once and write shards of tensors.

    a2data encode SHARDS --out DIR --model A2 [--ray auto]

`a2data train` encodes missing samples itself; `train --out DIR` uses the output of `encode --out DIR/encoded`.

OUT/train and OUT/held-out are folders of shards in the format of `pack` (tars, index.parquet, manifest.json). Each sample has two
members: {key}.json, the triplet's metadata, and {key}.safetensors with `video` (16, t, h, w), `condition` (20, t, h, w), `image`
(tokens, dim), `text` and `text_empty` (tokens, dim, unpadded). With the conditioning "appended" or "vace", `condition` is the
references' latents (16, n, h, w), and there is not an `image`. With `singles` there are also `condition_single` and
`image_single`, computed from the first reference only. OUT/no_references.safetensors is the condition without references.
OUT/encoding.json records the settings and the encoders. OUT/.a2data has the tables of the runner, from which a run resumes.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from a2data.dataset import writer
from a2data.records import Packed
from a2data.stage import Stage
from a2data.store.folder import Folder
from a2data.store.ledger import Ledger
from a2data.store.tables import Store
from pipelines.run import local, schedule, verify
from pipelines.run.lock import exclusive_lock
from pipelines.run.schedule import Summary
from stages.encode.settings import SPLITS, Encoding
from stages.encode.stage import Encode, parse_tar_name

STATE = ".a2data"  # folder in the output with the tables

Run = Callable[[Sequence[Stage], Store, list[int], dict[int, str]], Summary]  # the names are {shard: tar}


def here(stages: Sequence[Stage], store: Store, shards: list[int], names: dict[int, str]) -> Summary:
    """Run the jobs that are due in this process."""
    return schedule.run(stages, store, shards, local.InProcessExecutor(store))


def encode(
    shards_in: str,
    out: str,
    model: Path,
    how: Encoding,
    device: str = "cpu",
    run: Run = here,
    retry: bool = False,
    log: Callable[[str], Any] = print,
) -> dict[str, int]:
    """Encode every tar of a data set that is not encoded yet and return the number of samples in each split.

    A tar is encoded again if its bytes, the split of a sample, the encoders or a setting changed, or an encoded tar is missing;
    with `retry` also if a sample failed. `run` runs the jobs. Raises ValueError for a folder without shards, for tars that could
    not be encoded, after the others are, and if no training sample is left.
    """
    from model_zoo.a2 import checkpoint
    from model_zoo.a2 import encoders as a2_encoders

    if (model / "transformer").is_dir():
        checkpoint.check_conditioning(model, how.conditioning)
    source, target, store = Folder(shards_in), Folder(out), Store(f"{out.rstrip('/')}/{STATE}")
    index = read_index(source)
    apart = {row.clip_id for row in index if row.split not in ("", "train")}
    held_out = apart or choose_held_out([row.clip_id for row in index], how.validation_fraction)
    revision = a2_encoders.revision(model)
    # absolute, since workers may have another working directory
    shards, to = (folder.base if folder.local else folder.root for folder in (source, target))
    root = str(Path(model).absolute())
    stage = Encode(**asdict(how), shards=shards, out=to, model=root, revision=revision, device=device)
    with exclusive_lock(store):
        names = queue(store, index, held_out)
        verify.forget_damaged_tars(Ledger(store), target, hashed=False, stage=stage.name(), splits=SPLITS)
        for shard in names if retry else ():
            if (footer := store.footer(stage.name(), shard)) and footer.failed:
                store.remove(stage.name(), f"{shard:05d}.parquet")
        summary = run([stage], store, list(names), names)
        for (_, (shard, *_)), why in summary.failed_jobs.items():
            log(f"not encoded {names[shard]}: {why}")
        if summary.failed_jobs or summary.blocked:
            failed = len(summary.failed_jobs) + summary.blocked
            why = next(iter(summary.failed_jobs.values()), "the run ended before")
            raise ValueError(f"{failed} of {len(names)} tars in {shards_in} were not encoded: {why}")
        return publish(store, target, stage, held_out, log)


def queue(store: Store, index: Sequence[Packed], held_out: set[str], stage: str = Encode.name()) -> dict[int, str]:
    """Give each packed tar a shard of the table `pack` with the split of each sample, and return {shard: tar}.

    Parts of other tars are removed, also those of `stage`. Raises ValueError for a tar that is not named like a shard.
    """
    prefixes = sorted({parse_tar_name(row.shard)[1] for row in index})
    rows: dict[int, list[Packed]] = defaultdict(list)
    for row in index:
        number, prefix = parse_tar_name(row.shard)
        split = "held-out" if row.clip_id in held_out else "train"
        rows[number * len(prefixes) + prefixes.index(prefix)].append(replace(row, split=split))
    for table in ("pack", stage):
        for name in store.names(table):
            number_text = name.split(".")[0]
            if not number_text.isdigit() or int(number_text) not in rows:
                store.remove(table, name)
    for shard, mine in rows.items():
        if store.footer("pack", shard) is None or list(store.read("pack", shard, Packed)) != mine:
            store.write("pack", shard, Packed, mine)
    return {shard: mine[0].shard for shard, mine in sorted(rows.items())}


def read_index(source: Folder) -> list[Packed]:
    """Return the rows of a data set's index. Raises ValueError if there are none."""
    rows = writer.rows(source)
    if not rows:
        raise ValueError(f"the index of {source.root} is empty: there is nothing to train on")
    return rows


def choose_held_out(keys: list[str], share: float) -> set[str]:
    """Return the keys to hold out: the given fraction (at least one unless it is 0), chosen by the hash of the key."""
    count = max(1, round(len(keys) * share)) if share > 0 else 0
    if count >= len(keys):
        raise ValueError(
            f"{count} of {len(keys)} samples would be held out and none left to train on: lower --validation-fraction"
        )
    return set(sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())[:count])


def publish(
    store: Store, target: Folder, stage: Encode, held_out: set[str], log: Callable[[str], Any]
) -> dict[str, int]:
    """Write the indices, the manifests, no_references.safetensors and encoding.json, and return the samples in each split.

    Samples that were left out are named. Raises ValueError if no training sample is left.
    """
    shards = store.shards(stage.name())
    rows = [row for shard in shards for row in store.read(stage.name(), shard, Packed)]
    footers = [footer for shard in shards if (footer := store.footer(stage.name(), shard))]
    left_out = {reject.key: reject.detail for footer in footers for reject in footer.rejected}
    failed = {clip: why for footer in footers for clip, why in footer.failed.items()}
    for clip, why in left_out.items():
        log(f"skipped {clip}: {why}")
    for clip, why in failed.items():
        log(f"failed {clip}: {why}")
    index = {split: [replace(row, split="") for row in rows if row.split == split] for split in SPLITS}
    if not index["train"]:
        why = next(iter((failed | left_out).values()), "all samples are held out")
        raise ValueError(f"{stage.shards} has no usable training sample: {why}")
    settings = {name: getattr(stage, name) for name in Encoding.__dataclass_fields__}
    about = {"version": stage.version, "encoders": stage.revision, **settings, "held_out": sorted(held_out)}
    finish(target, index, about | {"left out": left_out, "failed": failed}, stage)
    return {split: len(mine) for split, mine in index.items()}


def finish(target: Folder, placed: dict[str, list[Packed]], about: dict[str, Any], stage: Encode) -> None:
    """Write the index and manifest of each split, no_references.safetensors and encoding.json, unless they are up to date."""
    from safetensors.torch import save

    from model_zoo.a2 import encoders as a2_encoders

    text = json.dumps(about, indent=1, sort_keys=True).encode()
    index = {split: sorted(rows, key=lambda row: (row.shard, row.offset)) for split, rows in placed.items()}
    if target.get("encoding.json") == text and all(_indexed(target, split, rows) for split, rows in index.items()):
        for split in placed:
            writer.remove_replaced(Folder(target.path(split)))
        return
    for split, rows in placed.items():
        writer.finish(Folder(target.path(split)), rows, about)
    vae = a2_encoders.autoencoder(Path(stage.model) / "vae")
    nothing = a2_encoders.null_condition(vae, stage.frames, stage.height, stage.width)
    target.put(save({"condition": nothing.cpu().contiguous()}), "no_references.safetensors")
    target.put(text, "encoding.json")


def _indexed(target: Folder, split: str, rows: list[Packed]) -> bool:
    """Return whether the index of a split holds these rows."""
    folder = Folder(target.path(split))
    return "index.parquet" in folder.names() and writer.rows(folder) == rows
