"""Compare shards with their manifest and tables with their checksums, decode samples, and report damage by path.

The result is recorded in verification.json beside the manifest, and in the work folder if its tables were verified, so that
`status` and the report can show the last verification.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import numpy as np

from a2data.dataset import writer
from a2data.dataset.reader import Tars, members, read_index
from a2data.store.folder import Folder
from a2data.store.ledger import Ledger
from a2data.store.parquet import DamagedError
from a2data.store.tables import Store
from pipelines.run import outputs

log = logging.getLogger("a2data")

FILE = "verification.json"
TAR_RECORD = 10240  # bytes; tarfile pads a tar to a multiple of it
TAR_END = 1024  # bytes; a tar ends with two blocks of zeros

Report = Callable[[str], None]


@dataclass(frozen=True)
class Verification:
    """Scope and findings of a verification.

    at: ISO 8601, UTC. tars, parts, decoded: how many were checked. problems: one line each, beginning with a path.
    """

    at: str
    tars: int = 0
    parts: int = 0
    decoded: int = 0
    unsealed: int = 0  # parts without checksums
    hashed: bool = True  # False: sizes only
    problems: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """Summary in one line, for `status` and the report."""
        checked = f"{self.tars} tars" + (f", {self.parts} parts" if self.parts else "")
        checked += f" ({self.unsealed} of them without checksums)" if self.unsealed else ""
        decoded = f", {self.decoded} samples decoded" if self.decoded else ""
        found = f"{len(self.problems)} damaged" if self.problems else "no damage"
        return f"{self.at}: {checked}{decoded}: {found}"


def now() -> str:
    """Return the current time in the format of Verification.at."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def last_verification(folder: Folder) -> Verification | None:
    """Return the last verification of a folder; None if it was never verified or the record cannot be read."""
    try:
        return Verification(**json.loads(folder.get(FILE) or b""))
    except (TypeError, ValueError):
        return None


def record_verification(folder: Folder, verification: Verification) -> None:
    """Record a verification in a folder. If the folder is not writable, the old record stays."""
    try:
        folder.put(json.dumps(asdict(verification), indent=1, ensure_ascii=False).encode() + b"\n", FILE)
    except OSError as error:
        log.error("%s cannot be written: %s", folder.path(FILE), error)


# -- shards ------------------------------------------------------------------------------------------------------------


def tar_bytes(end: int) -> int:
    """Return the size of a tar whose last sample ends at byte `end`."""
    return -(-(end + TAR_END) // TAR_RECORD) * TAR_RECORD


def tar_problem(out: Folder, name: str, size: int | None, expected: int, sha256: str) -> str:
    """Return what is wrong with a tar; "" if it is intact.

    size: its size in bytes, None if it is missing. expected: expected size in bytes. sha256: expected hash; "" compares only the
    size.
    """
    if size is None:
        return f"{out.path(name)} is missing"
    if size != expected:
        return f"{out.path(name)} has {size} bytes, not {expected}"
    if sha256 and (found := out.sha256(name)) != sha256:
        return f"{out.path(name)} has the sha256 {found[:12]}…, not {sha256[:12]}…"
    return ""


def verify_shards(out: Folder, report: Report = lambda _: None) -> tuple[list[str], list[str]]:
    """Compare every tar and the index with the manifest.

    Returns the names of the tars that the manifest lists, and the problems. Raises ValueError if the manifest is missing.
    """
    manifest = writer.manifest(out)
    entries = manifest.get("shards", [])
    if not manifest and "manifest.json" in out.names():
        return [], [
            f"{out.path('manifest.json')} is damaged: it does not have the format that `pack` writes; `a2data run` rewrites it"
        ]
    if "shards" not in manifest:
        raise ValueError(f"{out.root} does not contain a readable manifest.json; `a2data run` rewrites it")
    problems, sizes, version = list[str](), out.sizes(), manifest.get("format", writer.FORMATS[0])
    if version not in writer.FORMATS:
        readable = " and ".join(writer.FORMATS)
        problems.append(
            f"{out.path('manifest.json')} has the format {version!r}, but this version reads {readable}: upgrade a2data"
        )
    for entry in entries:
        report(entry["name"])
        wrong = tar_problem(out, entry["name"], sizes.get(entry["name"]), entry["bytes"], entry["sha256"])
        problems += [wrong] if wrong else []
    index = manifest.get("index")
    if index and "index.parquet" not in sizes:
        problems.append(f"{out.path('index.parquet')} is missing")
    elif index and out.sha256("index.parquet") != index["sha256"]:
        problems.append(f"{out.path('index.parquet')} is not the index that the manifest lists")
    elif index and version == writer.FORMAT:
        problems += differing_members(out)
    return [entry["name"] for entry in entries], problems


def differing_members(out: Folder) -> list[str]:
    """Return a problem for the first sample whose members differ from those of the first in the index."""
    rows = writer.rows(out)
    for row in rows:
        if differing := sorted(set(row.members) ^ set(rows[0].members)):
            pair = f"{out.path(row.shard)}: {row.clip_id} and {rows[0].clip_id}"
            return [f"{pair} differ in the members {', '.join(differing)}: repack the data set"]
    return []


def unlisted(out: Folder) -> list[str]:
    """Return the tars in a folder that its manifest does not list. They are not touched."""
    written = writer.owned_tars(out)
    return [name for name in out.names() if name.endswith(".tar") and name not in written]


def decode_samples(out: Folder, count: int, report: Report = lambda _: None) -> tuple[int, list[str]]:
    """Decode the JSON, every picture and every frame of samples. count: how many, spread evenly over the index; 0 for all.

    Returns the number of decoded samples and the problems.
    """
    # imported late because they load FFmpeg and OpenCV
    from a2data.dataset.decode import CorruptError, decode_frames, decode_reference, parse_facts
    from a2data.dataset.triplet import from_sample
    from a2data.media.images import from_png

    try:
        index = read_index([out.root])
    except (ValueError, OSError) as error:
        return 0, [str(error)]
    rows = np.unique(np.linspace(0, len(index) - 1, count or len(index)).astype(int)).tolist()
    tars, problems = Tars(index), []
    for row in rows:
        key, where = index.key(row), index.tar_path(row)
        report(key)
        try:
            parts = members(tars.read(row), key, where)
            facts = parse_facts(parts, key)
            slots = [name.removesuffix(".png") for name in parts if name.endswith(".png")]
            for name in sorted({*slots, *(given.name for given in facts.references)}):
                decode_reference(parts, name)
            for cut_out in from_sample({name: bytes(data) for name, data in parts.items()}).cut_outs.values():
                from_png(cut_out)
            frames = sum(1 for _ in decode_frames(parts["mp4"], 0, int(index.shape[0][row]), 1))
            if frames != facts.frames:
                raise CorruptError(f"has {frames} frames, but its JSON says {facts.frames}")
        except (ValueError, LookupError, OSError) as error:
            problems.append(f"{where}: {key}: {error}")
    return len(rows), problems


# -- tables ------------------------------------------------------------------------------------------------------------


def verify_parts(store: Store, stages: Sequence[str], report: Report = lambda _: None) -> tuple[int, int, list[str]]:
    """Read every part of these stages and check its checksums. Damaged parts are moved aside; the next run rebuilds them.

    Returns the number of parts, how many of them have no checksums (written by earlier versions), and the problems.
    """
    count, unsealed, problems = 0, 0, list[str]()
    for stage in stages:
        for shard in store.shards(stage):
            report(f"{stage} {shard:05d}")
            count += 1
            try:
                unsealed += not store.check(stage, shard)
            except DamagedError as error:
                problems.append(str(store.set_aside(error)))
    for shard in store.shards("manifest"):
        store.keep_copy("manifest", shard)
    return count, unsealed, problems


# -- before a run ------------------------------------------------------------------------------------------------------


def forget_damaged_tars(
    ledger: Ledger, out: Folder, hashed: bool, stage: str = "pack", splits: Sequence[str] = ()
) -> Verification:
    """Remove the parts of a stage with a missing or altered tar in `out`, so that the run writes them again.

    hashed: compare sha256, which reads every tar; otherwise only the size. splits: those with a folder of their own in `out`. The
    rows of `pack` are read unless the manifest of the tars was made from them and all sizes are right.
    """
    store, sizes, tars, problems = ledger.store, out.sizes(), 0, []
    manifest = {} if hashed or splits else writer.manifest(out)
    if manifest.get("about", {}).get("tables") == outputs.tables_digest(ledger):
        entries = manifest["shards"]
        if all(sizes.get(entry["name"]) == entry["bytes"] for entry in entries):
            return Verification(now(), len(entries), hashed=False)
    sizes |= {f"{split}/{name}": size for split in splits for name, size in out.sizes(split).items()}
    for shard in ledger.shards(stage):
        ends: dict[str, tuple[int, str]] = {}
        columns = ["shard", "offset", "bytes", "shard_sha256", *(["split"] if splits else [])]
        for row in store.columns(stage, shard, columns).to_pylist():
            name = f"{row['split']}/{row['shard']}" if splits else row["shard"]
            ends[name] = max(ends.get(name, (0, "")), (row["offset"] + row["bytes"], row["shard_sha256"]))
        damaged = [
            problem
            for name, (end, sha256) in sorted(ends.items())
            if (problem := tar_problem(out, name, sizes.get(name), tar_bytes(end), sha256 if hashed else ""))
        ]
        tars += len(ends)
        if damaged:
            problems += damaged
            store.remove(stage, f"{shard:05d}.parquet")
            ledger.reread([(stage, shard)])
    for problem in problems:
        log.error("%s; writing it again", problem)
    return Verification(now(), tars, hashed=hashed, problems=problems)
