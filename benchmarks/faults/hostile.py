"""Shards as an attacker would write them, through the programs that read shards: the loader, A2-Bench, the page and `verify`.

A program survives when it rejects the shards with an error, or skips the hostile sample and reads the others; when it writes no
file outside its own folder; and when its memory stays bounded.
"""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.faults.table import Row
from benchmarks.kill import ENVIRONMENT

PEAK_MB = 2000.0
TIMEOUT_S = 300
WRONG = "WRONG"  # begins the line of a program that neither read nor rejected
COUNT = 4  # samples of a folder, of which the first is hostile
PROGRAMS = ("loader", "bench", "page", "verify")


@dataclass(frozen=True)
class Sample:
    """One sample of a shard: key, members by extension, and its row of the index."""

    key: str
    members: dict[str, bytes]
    row: dict[str, Any]
    columns: dict[str, Any] = field(default_factory=dict)  # of the index, whatever the tar has
    extra: tuple[tarfile.TarInfo, ...] = ()  # further members of the tar, without content


Change = Callable[[Sample], Sample]


# -- what is hostile ---------------------------------------------------------------------------------------------------


def key(value: str) -> Change:
    """Give the sample another key, in the index and in the tar."""
    return lambda s: replace(s, key=value)


def row(**values: Any) -> Change:
    """Change columns of the index."""
    return lambda s: replace(s, columns=values)


def facts(**values: Any) -> Change:
    """Change fields of the JSON."""
    return lambda s: member("json", json.dumps(json.loads(s.members["json"]) | values).encode())(s)


def member(extension: str, data: bytes) -> Change:
    """Replace a member."""
    return lambda s: replace(s, members=s.members | {extension: data})


def without(extension: str) -> Change:
    """Remove a member that the JSON names."""
    return lambda s: replace(s, members={name: data for name, data in s.members.items() if name != extension})


def cut(extension: str) -> Change:
    """Cut a member in half."""
    return lambda s: member(extension, s.members[extension][: len(s.members[extension]) // 2])(s)


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Change:
    """Add a member to the tar, in the middle of the sample."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return lambda s: replace(s, extra=(info,))


def png(width: int, height: int, depth: int = 8, colour: int = 2, rows: int = 0, text: bytes = b"") -> bytes:
    """Return a PNG whose header claims a size, with `rows` rows of zeros behind it, all compressed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    squeeze = zlib.compressobj(9)
    pixels = b"".join(squeeze.compress(bytes(1 + width * channels * depth // 8)) for _ in range(rows))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    note = chunk(b"zTXt", b"note\0\0" + zlib.compress(text, 9)) if text else b""
    body = chunk(b"IHDR", head) + note + chunk(b"IDAT", pixels + squeeze.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def cases(outside: Path) -> dict[str, Change]:
    """Return every change by what it is called. outside: where names that leave the folder lead."""
    deep = b"[" * 200_000 + b"]" * 200_000
    return {
        "key: absolute path": key(str(outside / "evil")),
        "key: parent folder": key("../../outside/evil"),
        "key: NUL": key("a\0b"),
        "key: newline": key("a\nb"),
        "key: 300 characters": key("x" * 300),
        "JSON: clip_id absolute": facts(clip_id=str(outside / "evil")),
        "JSON: clip_id of the parent folder": facts(clip_id="../../outside/evil"),
        "JSON: not an object": member("json", b"[1, 2]"),
        "JSON: 200,000 levels deep": member("json", deep),
        "JSON: integer of 100,000 digits": member("json", b'{"frames": ' + b"9" * 100_000 + b"}"),
        "JSON: integer beyond 64 bits": facts(frames=2**80, shot=2**80),
        "JSON: surrogate in the path": facts(path="\ud800"),
        "JSON: empty": member("json", b""),
        "JSON: NaN for a frame rate": facts(fps=float("nan")),
        "JSON: references of another type": facts(references="ref0"),
        "index: shard outside": row(shard="../outside/secret.tar"),
        "index: shard absolute": row(shard=str(outside / "secret.tar")),
        "index: negative offset": row(offset=-512),
        "index: negative size": row(bytes=-1),
        "index: offset beyond the tar": row(offset=1 << 62),
        "index: NaN copy risk": row(copy_risk=float("nan")),
        "index: huge frame count": row(frames=1 << 40),
        "picture: 30,000 x 30,000": member("ref0.png", png(30_000, 30_000, rows=30_000, colour=0)),
        "picture: header of 2^31 px": member("ref0.png", png(2**31 - 1, 2**31 - 1)),
        "picture: text of 500 MB": member("ref0.png", png(8, 8, rows=8, text=bytes(500_000_000))),
        "picture: 16-bit grey": member("ref0.png", png(64, 64, 16, 0, 64)),
        "picture: cut": cut("ref0.png"),
        "picture: missing": without("ref0.png"),
        "video: cut": cut("mp4"),
        "video: text": member("mp4", b"#EXTM3U\nfile:///etc/passwd\n" * 50),
        "video: empty": member("mp4", b""),
        "tar: absolute member": tar_member(str(outside / "evil")),
        "tar: symbolic link": tar_member("clip.json", tarfile.SYMTYPE, "/etc/passwd"),
        "tar: device": tar_member("clip.json", tarfile.CHRTYPE),
    }


# -- the shards --------------------------------------------------------------------------------------------------------


def read_samples(folder: Path, count: int) -> list[Sample]:
    """Read the first samples of an honest folder of shards."""
    table = pq.read_table(folder / "index.parquet").to_pylist()
    found = []
    for values in table[:count]:
        with open(folder / values["shard"], "rb") as file:
            file.seek(values["offset"])
            piece = io.BytesIO(file.read(values["bytes"]) + bytes(1024))
        with tarfile.open(fileobj=piece) as tar:
            parts = {m.name[len(values["clip_id"]) + 1 :]: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        found.append(Sample(values["clip_id"], parts, values))
    return found


def write_shards(folder: Path, samples: list[Sample], schema: pa.Schema) -> None:
    """Write samples to one tar and an index, checking nothing."""
    folder.mkdir(parents=True)
    rows, name = [], "00000-000.tar"
    with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            start = tar.offset
            for number, (extension, data) in enumerate(sorted(sample.members.items())):
                if number == 1:
                    for info in sample.extra:
                        tar.addfile(info)
                info = tarfile.TarInfo(f"{sample.key}.{extension}"[-99:])
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            place = {"shard": name, "offset": start, "bytes": tar.offset - start, "members": sorted(sample.members)}
            rows.append(sample.row | place | {"clip_id": sample.key} | sample.columns)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "index.parquet")


# -- the programs that read them ---------------------------------------------------------------------------------------


def read_with(program: str, folder: Path) -> int:
    """Read all samples of a folder with a program, in this process. Returns its exit code."""
    if program == "loader":
        return _read_with_loader(folder)
    if program == "page":
        from pipelines import ui

        packed = ui.ShardReader(str(folder))
        for clip in packed.rows:
            ui.looked_at(packed, clip)
        return 0
    from pipelines.cli.main import main

    if program == "bench":
        return main(["bench", "make", "cases", "--triplets", str(folder)])
    return main(["verify", str(folder), "--decode"])


def _read_with_loader(folder: Path) -> int:
    from a2data.dataset.loader import Loader, standard_buckets

    loader = Loader(folder, seed=0, global_batch_size=1, num_workers=0, buckets=standard_buckets())
    read, skipped = set(), set()
    for _, samples in zip(range(4 * COUNT), loader, strict=False):
        read |= {sample.key for sample in samples}
        skipped |= {key for sample in samples for key in sample.replaced}
    print(f"read {len(read)}, skipped {sorted(skipped)}")
    return 0


def tree(folder: Path) -> set[str]:
    """Return every path below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def attempt(folder: Path, home: Path) -> tuple[list[str], float]:
    """Read a folder with every program, in one process whose working folder is `home`.

    Returns what went wrong, and the peak of the process's memory in MB.
    """
    command = [sys.executable, "-m", "benchmarks.faults.hostile", str(folder)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=ENVIRONMENT | {"TMPDIR": str(home)}, cwd=home, stdout=log, stderr=log)
        timer = threading.Timer(TIMEOUT_S, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        log.seek(0)
        text = log.read()
    peak_mb = usage.ru_maxrss / 1024
    code = os.waitstatus_to_exitcode(status)
    wrong = [line for line in text.splitlines() if line.startswith(WRONG)]
    wrong += [f"ended with {code}"] if code else []
    wrong += ["a traceback"] if "Traceback" in text and not wrong else []
    wrong += [f"took {peak_mb:.0f} MB"] if peak_mb > PEAK_MB else []
    return wrong, peak_mb


def read_with_all(folder: Path) -> None:
    """Read a folder with every program in turn, and print how each ended."""
    for program in PROGRAMS:
        try:
            print(f"{program}: exit code {read_with(program, folder)}", flush=True)
        except (ValueError, OSError) as error:  # a rejection, as a command reports it
            print(f"{program}: rejected: {str(error)[:200]!r}", flush=True)
        except BaseException as error:
            print(f"{WRONG} {program}: {type(error).__name__}: {str(error)[:200]!r}", flush=True)


def hostile_shards(root: Path, honest: Path) -> Iterator[Row]:
    """Read each hostile folder with every program. honest: a folder of shards to start from. One row for each folder."""
    samples = read_samples(honest, COUNT)
    schema = pq.read_schema(honest / "index.parquet")
    for number, (name, change) in enumerate(cases(root / "outside").items()):
        home = root / f"{number:02d}"
        (root / "outside").mkdir(exist_ok=True)
        (root / "outside" / "secret.tar").write_bytes(b"secret" * 100)
        write_shards(home / "shards", [change(samples[0]), *samples[1:]], schema)
        before = tree(root) - {str(p) for p in tree(home)}
        wrong, peak_mb = attempt(home / "shards", home)
        written = {path for path in tree(root) - before if not path.startswith(home.name)}
        wrong += [f"wrote {path}" for path in sorted(written)[:2]]
        yield Row(f"shards: {name}", 1, int(not wrong), "; ".join(wrong) or f"peak {peak_mb:.0f} MB")
        shutil.rmtree(home)


if __name__ == "__main__":
    read_with_all(Path(sys.argv[1]))
