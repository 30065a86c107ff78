"""Layouts of a sample's pictures that give every sample the same members: bytes, and CPU time to read, on packed shards.

    python -m benchmarks.members demo/shards [--passes 15]

as found    a member for each picture that there is: samples differ in their members, which most readers refuse (format 2)
slots       a member for each picture that there could be; one pixel where there is none
zip         slots for the references, and all cut-outs in one archive without compression (format 3)
cut-outs    slots for the cut-outs alone: the reference on white is made from the cut-out and its box when it is read
one member  all pictures in one archive

Each line: bytes of the tars, and CPU seconds to read all samples, as a ratio to the first; medians over passes in turn. `members`
is until the members are at hand; `plain` the same by webdataset; `pictures` until the JSON is parsed and all references are RGB
arrays. The video, which is the same in all, is not decoded.
"""

import argparse
import io
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import webdataset

from a2data.dataset import triplet as samples
from a2data.dataset import writer
from a2data.dataset.reader import Tars, members, read_index
from a2data.media.images import from_png, on_white
from a2data.records import Packed
from a2data.store.folder import Folder

Members = dict[str, bytes]
Read = Callable[[Members, samples.TripletMeta], list[np.ndarray]]


class Layout(NamedTuple):
    write: Callable[[samples.Triplet], Members]
    read: Read


def slots(triplet: samples.Triplet) -> Members:
    made = {name: data for name, data in samples.to_members(triplet).items() if name != "cutouts.zip"}
    cut = {f"ref{n}.rgba.png": triplet.cut_outs.get(f"ref{n}", samples.NO_PICTURE) for n in range(samples.SLOTS)}
    return made | cut


def as_found(triplet: samples.Triplet) -> Members:
    return {name: data for name, data in slots(triplet).items() if data != samples.NO_PICTURE}


def cut_outs(triplet: samples.Triplet) -> Members:
    return {name: d for name, d in slots(triplet).items() if name in ("json", "mp4", "bg.png") or "rgba" in name}


def one_member(triplet: samples.Triplet) -> Members:
    found, data = as_found(triplet), io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in sorted(found.keys() - {"json", "mp4"}):
            archive.writestr(zipfile.ZipInfo(name), found[name])
    return {"json": found["json"], "mp4": found["mp4"], "references.zip": data.getvalue()}


def read_pictures(made: Members, facts: samples.TripletMeta) -> list[np.ndarray]:
    return [from_png(bytes(made[f"{given.name}.png"]))[..., :3] for given in facts.references]


def read_cut_outs(made: Members, facts: samples.TripletMeta) -> list[np.ndarray]:
    found = []
    for given in facts.references:
        if given.name == "bg":
            found.append(from_png(bytes(made["bg.png"])))
        else:
            origin = given.origin
            rgba = from_png(bytes(made[f"{given.name}.rgba.png"]))
            found.append(on_white(rgba, origin.box, origin.height, origin.width))
    return found


def read_one_member(made: Members, facts: samples.TripletMeta) -> list[np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(made["references.zip"])) as archive:
        return [from_png(archive.read(f"{given.name}.png"))[..., :3] for given in facts.references]


LAYOUTS = {
    "as found": Layout(as_found, read_pictures),
    "slots": Layout(slots, read_pictures),
    "zip": Layout(samples.to_members, read_pictures),
    "cut-outs": Layout(cut_outs, read_cut_outs),
    "one member": Layout(one_member, read_one_member),
}


def write(source: Folder, out: Path, layout: Layout) -> int:
    """Write all samples in a layout. Returns the bytes of the tars."""
    rows = sorted(writer.rows(source), key=lambda row: row.clip_id)
    made = (
        (
            r.clip_id,
            layout.write(samples.from_sample(writer.read_sample(source, r.clip_id, r.shard, r.offset, r.bytes))),
        )
        for r in rows
    )
    placed = list(writer.write(made, Folder(out), 0))
    packed = [
        Packed(*p, r.frames, r.height, r.width, r.fps, r.roles, r.license, r.copy_risk)
        for p, r in zip(placed, rows, strict=True)
    ]
    writer.finish(Folder(out), packed, {})
    return sum(path.stat().st_size for path in out.glob("*.tar"))


def read_members(tars: Tars) -> None:
    for row in range(len(tars.index)):
        members(tars.read(row), tars.index.key(row), "")


def read_plainly(folder: Path) -> None:
    for _ in webdataset.WebDataset([str(path) for path in folder.glob("*.tar")], shardshuffle=False):
        pass


def read_references(tars: Tars, read: Read) -> None:
    for row in range(len(tars.index)):
        made = members(tars.read(row), tars.index.key(row), "")
        read(made, samples.to_facts(bytes(made["json"])))  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", help="folder of packed shards")
    parser.add_argument("--passes", type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        homes = {name: Path(root, name) for name in LAYOUTS}
        size = {name: write(Folder(args.shards), homes[name], layout) for name, layout in LAYOUTS.items()}
        tars = {name: Tars(read_index([home])) for name, home in homes.items()}
        took: dict[str, dict[str, list[float]]] = {
            what: {name: [] for name in LAYOUTS} for what in ("members", "plain", "pictures")
        }
        for _ in range(args.passes):
            for name, layout in LAYOUTS.items():
                work: dict[str, Callable[[], None]] = {
                    "members": lambda name=name: read_members(tars[name]),
                    "plain": lambda name=name: read_plainly(homes[name]),
                    "pictures": lambda name=name, read=layout.read: read_references(tars[name], read),
                }
                for what, do in work.items():
                    began = time.process_time()
                    do()
                    took[what][name].append(time.process_time() - began)
        count = len(tars["slots"].index)
        print(f"{count} samples, {size['as found'] / count / 1024:.0f} KiB each; medians of {args.passes} passes")
        for name in LAYOUTS:
            ratios = ", ".join(
                f"{what} {np.median(np.divide(times[name], times['as found'])):.2f}" for what, times in took.items()
            )
            print(f"{name:10}  bytes {size[name] / size['as found']:.3f}, {ratios}")


if __name__ == "__main__":
    main()
