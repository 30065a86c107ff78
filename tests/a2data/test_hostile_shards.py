"""Shards of strangers: whatever is in a sample, the loader skips it by name; memory stays bounded."""

import contextlib
import itertools
import json
import resource
import struct
import time
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as how_many
from hypothesis import strategies as st

from a2data.dataset.batch_plan import Batch, Bucket
from a2data.dataset.decode import Augmentation, CorruptError, Decode, Limits, Shape, center_crop_resize
from a2data.dataset.reader import Tars, members, read_index
from a2data.dataset.weights import copy_filter_weights
from a2data.media import video
from a2data.media.images import from_png, to_png

torch = pytest.importorskip("torch")

from safetensors.torch import save  # noqa: E402

from a2data.dataset.loader import Loader  # noqa: E402

BUCKET = Bucket(4, 16, 16)
GROWTH_BYTES = 300 << 20  # most that a refusal may take for a moment


@pytest.fixture(scope="module")
def sample(tmp_path_factory, pack):
    """The members of a sample with a human, an object and a place."""
    folder = tmp_path_factory.mktemp("packed")
    pack(folder)
    index = read_index([folder])
    return {name: bytes(data) for name, data in members(Tars(index).read(7), "clip-007", "").items()}


def decoded(made, limits=None):
    batch = Batch(0, 0, 0, 0, BUCKET, np.array([7]))
    views = {name: memoryview(data) for name, data in made.items()}
    decode = Decode("raw", 0, center_crop_resize, Augmentation(), 1, limits or Limits())
    return decode(views, batch, 0, 7, "clip-007", lambda row: Shape(9, 32, 48, 3))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth=8, colour=2, data=b"", before=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def edited(text, change):
    facts = json.loads(text)
    change(facts)
    return json.dumps(facts).encode()


def put(*path, value):
    def change(facts):
        for step in path[:-1]:
            facts = facts[step]
        facts[path[-1]] = value

    return lambda text: edited(text, change)


JSONS = {
    "an integer of 10,000 digits": lambda text: text.replace(b'"shot":0', b'"shot":' + b"9" * 10_000),
    "an integer beyond 64 bits": put("shot", value=1 << 70),
    "an integer beyond 63 bits": put("frames", value=1 << 63),
    "100,000 levels": lambda text: text[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "more than 8 MB": lambda text: text[:-1] + b',"x":[' + b"[]," * (3 << 20) + b"[]]}",
    "a name twice": lambda text: text[:-1] + b',"shot":1}',
    "NaN": put("fps", value=float("nan")),
    "a lone surrogate": put("caption", "prompt", value="\ud800"),
    "a prompt that is null": put("caption", "prompt", value=None),
    "a prompt that is a number": put("caption", "prompt", value=7),
    "a list instead of an object": lambda text: b"[]",
    "a number instead of an object": lambda text: b"7",
    "nothing": lambda text: b"",
    "another format": put("format", value="a2data-triplet/9"),
    "a format that is a list": put("format", value=[]),
    "references that are a number": put("references", value=7),
    "a reference that is null": put("references", value=[None, None, None]),
    "rules that are null": put("references", 0, "rules", value=None),
    "a rule without its value": put("references", 0, "rules", value=[{"name": "x"}]),
    "a box of three": put("crop", value=[0, 1, 2]),
    "a place in the text that is text": put("caption", "environment_start", value="x"),
    "fewer references than its row": lambda text: edited(text, lambda facts: facts["references"].pop()),
    "two references of one name": put("references", 1, "name", value="ref0"),
    "a reference whose name is a path": put("references", 1, "name", value="/../../ref1"),
    "bytes that are not UTF-8": lambda text: text.replace(b"kitchen", b"\xff\xfe"),
}


@pytest.mark.parametrize("change", JSONS.values(), ids=JSONS)
def test_a_sample_with_such_a_json_is_corrupt(sample, change):
    with pytest.raises(CorruptError):
        decoded(sample | {"json": change(sample["json"])})


PNGS = {
    "600 million pixels in 1.7 MB": (lambda: png(24_000, 25_000, data=bytes(1_700_000)), "24000|25000"),
    "four billion pixels on a side": (lambda: png(0xFFFFFFFF, 0xFFFFFFFF), "pixels, more than"),
    "no pixel": (lambda: png(0, 5), "0 pixels|5 x 0"),
    "grey with 16 bits": (lambda: png(8, 8, 16, 0, bytes(8 * 17)), "colour type 0 with 16 bits"),
    "grey": (lambda: png(8, 8, 8, 0, bytes(8 * 9)), "colour type 0 with 8 bits"),
    "RGB with 16 bits": (lambda: png(8, 8, 16, 2, bytes(8 * 49)), "colour type 2 with 16 bits"),
    "fewer rows than it says": (lambda: png(8, 8, data=bytes(25))[:-20], "truncated"),
    "another kind of file": (lambda: b"II*\0" + bytes(100), "not a valid PNG"),
}


@pytest.mark.parametrize(("make", "why"), PNGS.values(), ids=PNGS)
def test_a_sample_with_such_a_picture_is_corrupt(sample, make, why):
    with pytest.raises(CorruptError, match=f"ref0.png cannot be read: .*({why})"):
        decoded(sample | {"ref0.png": make()})


def test_compressed_text_in_a_picture_is_not_unpacked_and_an_animation_shows_its_picture():
    bomb = zlib.compress(bytes(64 << 20))
    text, profile = chunk(b"zTXt", b"x\0\0" + bomb), chunk(b"iCCP", b"x\0\0" + bomb)
    frames = chunk(b"acTL", struct.pack(">II", 1 << 30, 0)) + chunk(b"fcTL", bytes(26))
    rows = (b"\0" + bytes([1, 2, 3]) * 8) * 8
    for before in (text, profile, frames):
        assert from_png(png(8, 8, data=rows, before=before)).tolist() == [[[1, 2, 3]] * 8] * 8


def test_a_palette_becomes_rgb():
    palette = chunk(b"PLTE", bytes([9, 8, 7, 1, 2, 3]))
    picture = from_png(png(8, 2, 1, 3, b"\0\x00\0\xff", palette))
    assert picture.tolist() == [[[9, 8, 7]] * 8, [[1, 2, 3]] * 8]


def test_references_have_a_limit_each_and_one_together(sample, monkeypatch):
    monkeypatch.setattr("a2data.dataset.decode.MAX_REFERENCE_PIXELS_RATIO", 2)
    limits = Limits(max_pixels=32 * 48)
    assert decoded(sample, limits).references
    large = {f"{name}.png": to_png(np.zeros((32, 40, 3), np.uint8)) for name in ("ref0", "ref1", "bg")}
    with pytest.raises(CorruptError, match=r"bg.png cannot be read: a picture of 32 x 40 pixels, more than 512"):
        decoded(sample | large, limits)


def with_count(film, box, at, count):
    """The mp4 with another number in a box, so many bytes behind its type."""
    place = film.index(box) + 4 + at
    return film[:place] + struct.pack(">I", count) + film[place + 4 :]


def encoded(frames, height, width):
    return video.encode(np.full((frames, height, width, 3), 90, np.uint8), 15)


FILMS = {
    "a hundred million frames by its index": (
        lambda f: with_count(f, b"stsz", 8, 10**8),
        "100000000 frames, more than",
    ),
    "times for a billion frames": (lambda f: with_count(f, b"stts", 8, 10**9), "times for"),
    "a table that is longer than its box": (lambda f: with_count(f, b"stts", 4, 10**9), "truncated before"),
    "a box that is longer than the file": (lambda f: with_count(f, b"ftyp", -8, 1 << 30), "but only .* are left"),
    "a box of no length": (lambda f: with_count(f, b"ftyp", -8, 4), "has a box"),
    "a compressed index": (lambda f: f.replace(b"mvhd", b"cmov"), "a compressed index"),
    "fragments": (lambda f: f + b"\0\0\0\x08moof", "fragments"),
    "a track of sound": (lambda f: f.replace(b"vide", b"soun"), "instead of one video track"),
    "a playlist of other files": (lambda f: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "its .mp4 cannot be read"),
    "nothing": (lambda f: b"", "instead of one video track"),
    "more frames than its row": (lambda f: encoded(11, 32, 48), "has 11 frames in its .mp4, more than"),
    "fewer frames than its row": (lambda f: encoded(8, 32, 48), "has 8 frames in its .mp4, fewer than"),
    "larger frames than its row": (lambda f: encoded(9, 64, 96), "frames of 64 x 96 pixels in its .mp4, but its row"),
}


@pytest.mark.parametrize(("change", "why"), FILMS.values(), ids=FILMS)
def test_a_sample_with_such_a_film_is_corrupt(sample, change, why):
    with pytest.raises(CorruptError, match=why):
        decoded(sample | {"mp4": change(sample["mp4"])})


def test_a_film_that_says_it_is_small_is_not_decoded_large(sample):
    """The container says 32 x 48, the stream inside is larger: the decoder refuses before it takes the memory."""
    large = encoded(9, 512, 768)
    place = large.index(b"avc1") + 4 + 24
    small = large[:place] + struct.pack(">HH", 48, 32) + large[place + 4 :]
    with pytest.raises(CorruptError, match=r"\.mp4"):
        decoded(sample | {"mp4": small}, Limits(max_pixels=32 * 48))


@given(st.data())
@how_many(max_examples=75)
def test_whatever_bytes_are_changed_the_sample_is_read_or_corrupt(sample, data):
    """Nothing else is raised, whichever bytes are others, lacking or too many."""
    name = data.draw(st.sampled_from(sorted(sample)))
    old = sample[name]
    at = data.draw(st.integers(0, len(old) - 1))
    new = data.draw(st.binary(min_size=0, max_size=8))
    made = old[:at] + new + old[at + data.draw(st.integers(0, 8)) :]
    with contextlib.suppress(CorruptError):
        assert decoded(sample | {name: made}).video.shape == (4, 16, 16, 3)


@pytest.mark.parametrize("total", [64, pytest.param(400, marks=pytest.mark.slow)])
def test_damaged_samples_are_skipped_by_name_in_bounded_memory(tmp_path, pack, monkeypatch, total):
    """Every byte of a sample's piece of the tar, headers too, may be hit: the loader goes on, and says whom it skipped."""
    monkeypatch.setattr("a2data.dataset.loader.MAX_ATTEMPTS", 500)  # nearly all are damaged
    rng = np.random.default_rng(0)
    packed = pack(tmp_path, total)
    for row in packed[: total * 3 // 4]:
        with open(tmp_path / row.shard, "r+b") as tar:
            for at in rng.integers(row.offset, row.offset + row.bytes, 6):
                tar.seek(at)
                tar.write(bytes([rng.integers(256)]))
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader = Loader(tmp_path, seed=0, global_batch_size=8, buckets=[BUCKET], view="raw", tail="fill")
    seen = [sample for samples in itertools.islice(reader, total // 8) for sample in samples]
    assert len(seen) == total
    assert len(reader.corrupt_samples) > total / 2
    damaged = {row.clip_id for row in packed[: total * 3 // 4]}
    assert set(reader.corrupt_samples) <= damaged
    assert all(key in why and ".tar" in why for key, why in reader.corrupt_samples.items())
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began) << 10 < GROWTH_BYTES


def test_bombs_are_refused_in_bounded_memory_and_time(sample):
    began, clock = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for name, made in {
        "ref0.png": PNGS["600 million pixels in 1.7 MB"][0](),
        "json": JSONS["more than 8 MB"](sample["json"]),
        "mp4": FILMS["a hundred million frames by its index"][0](sample["mp4"]),
    }.items():
        with pytest.raises(CorruptError):
            decoded(sample | {name: made})
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began) << 10 < GROWTH_BYTES
    assert time.process_time() - clock < 5


@pytest.mark.parametrize("view", ["encoded", "bytes"])
def test_damaged_headers_and_tensors_are_skipped_in_every_view(tmp_path, pack, view):
    stored = save({"x": torch.ones(4)})
    packed = pack(tmp_path, change=lambda key, made: {"json": made["json"], "safetensors": stored})
    for row, at in ((packed[0], 0), (packed[1], 120)):
        with open(tmp_path / row.shard, "r+b") as tar:
            tar.seek(row.offset + at)
            tar.write(b"\xff" * 16)
    reader = Loader(tmp_path, seed=0, global_batch_size=7, buckets=[BUCKET], view=view, index="index.parquet")
    next(iter(reader)), next(iter(reader))
    assert set(reader.corrupt_samples) == {"clip-000", "clip-001"}
    assert "does not begin at its offset in the index" in reader.corrupt_samples["clip-000"]


STATES = {
    "not a mapping": [],
    "nothing in it": {},
    "NaN": {"epoch": float("nan")},
    "negative": {"epoch": -1},
    "a truth": {"batch": True},
    "a text": {"batch": "0"},
    "a fraction": {"batch": 0.5},
    "beyond 64 bits": {"epoch": 1 << 70},
    "a batch that an epoch does not have": {"batch": 10**6},
    "no hash": {"plan": None},
    "a hash of another form": {"plan": "x"},
    "the hash of another data set": {"plan": "0-0"},
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
def test_a_state_that_makes_no_sense_is_refused_and_changes_nothing(tmp_path, pack, change):
    pack(tmp_path)
    reader = Loader(tmp_path, seed=0, global_batch_size=4, buckets=[BUCKET], view="bytes")
    state = reader.state_dict() | change if isinstance(change, dict) and change else change
    with pytest.raises(ValueError, match="state"):
        reader.load_state_dict(state)
    assert reader.state_dict() == {"epoch": 0, "batch": 0, "plan": reader.plan.digest}


def test_weights_that_are_not_numbers_are_refused_by_row(tmp_path, pack):
    pack(tmp_path)
    table = pq.read_table(tmp_path / "index.parquet")
    risk = pa.array([0.1, float("nan"), float("inf")] + [0.2] * 11)
    place = table.schema.get_field_index("copy_risk")
    pq.write_table(table.set_column(place, "copy_risk", risk), tmp_path / "index.parquet")
    with pytest.raises(ValueError, match=r"row 1 of the index has nan, and 1 more rows"):
        Loader(tmp_path, seed=0, global_batch_size=4, buckets=[BUCKET], view="bytes", weight=copy_filter_weights)
