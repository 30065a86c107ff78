import os
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from a2data.dataset.reader import Tars, members, read_index
from a2data.dataset.weights import balanced_weights, copy_filter_weights, mixture_weights, rows_with_roles


def rewritten(folder, **columns):
    """The index with other columns."""
    table = pq.read_table(folder / "index.parquet")
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, table[name].type))
    pq.write_table(table, folder / "index.parquet")


def test_every_sample_is_read_as_tarfile_reads_it(tmp_path, pack):
    packed = pack(tmp_path)
    index = read_index([tmp_path])
    assert len({row.shard for row in packed}) > 1
    tars = Tars(index)
    for row, place in enumerate(packed):
        with tarfile.open(tmp_path / place.shard) as tar:
            inside = {m.name: tar.extractfile(m).read() for m in tar if m.name.startswith(place.clip_id)}
        found = members(tars.read(row), index.key(row), index.tar_path(row))
        assert {f"{place.clip_id}.{name}": bytes(data) for name, data in found.items()} == inside
        assert (index.key(row), [int(x[row]) for x in index.shape]) == (
            place.clip_id,
            [place.frames, place.height, place.width],
        )


def test_a_url_gives_the_same_bytes(tmp_path, pack):
    from a2data.store.folder import Folder

    pack(tmp_path)
    there = Folder(f"memory://{tmp_path}/x")
    for name in os.listdir(tmp_path):
        there.put((tmp_path / name).read_bytes(), name)
    near, far = Tars(read_index([tmp_path])), Tars(read_index([there.root]))
    assert near.index.digest == far.index.digest
    assert [bytes(near.read(row)) for row in range(14)] == [bytes(far.read(row)) for row in range(14)]


def test_open_files_do_not_travel_to_workers_and_their_number_is_bounded(tmp_path, pack, monkeypatch):
    pack(tmp_path)
    monkeypatch.setattr("a2data.dataset.reader.MAX_OPEN", 2)
    tars = Tars(read_index([tmp_path]))
    read = [bytes(tars.read(row)) for row in [*range(14), *range(14)]]
    assert len(tars.open) <= 2
    again = pickle.loads(pickle.dumps(tars))
    assert not again.open
    assert [bytes(again.read(row)) for row in range(14)] == read[:14]


def address(piece):
    return np.frombuffer(piece, np.uint8).ctypes.data


@pytest.mark.parametrize("counted", [0, 2, 3, 99])
def test_memory_is_used_again_exactly_when_no_view_of_it_is_left_however_references_are_counted(
    tmp_path, pack, monkeypatch, counted
):
    """Python 3.14 counts 3 references to what an older one counts more of."""
    monkeypatch.setattr("sys.getrefcount", lambda _: counted)
    pack(tmp_path)
    tars = Tars(read_index([tmp_path]))
    apart = [bytes(tars.read(row)) for row in range(14)]
    pieces = [members(tars.read(row), tars.index.key(row), "") for row in range(14)]  # the views alone are held
    expected = [members(memoryview(a), f"clip-{n:03d}", "") for n, a in enumerate(apart)]
    assert pieces == expected
    free = min(address(data) for data in pieces[3].values()) - 512
    del pieces[3]
    assert address(tars.read(3)) == free
    assert [bytes(tars.read(row)) for row in range(14)] == apart
    assert pieces == [*expected[:3], *expected[4:]]


KEEPS = {
    "numpy, from a buffer": lambda view: np.frombuffer(view, np.uint8),
    "numpy, a view of a view": lambda view: np.asarray(view)[10:][::2],
    "a slice": lambda view: view[7:9],
    "an iterator": iter,
    "two of them": lambda view: [view[:1], np.asarray(view)],
}


@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS)
def test_memory_is_not_used_again_while_anything_made_of_a_view_is_there(tmp_path, pack, keep):
    pack(tmp_path)
    tars = Tars(read_index([tmp_path]))
    view = tars.read(0)
    where, kept = address(view), keep(view[512:])
    del view
    assert where not in {address(piece) for piece in [tars.read(0) for _ in range(20)]}
    del kept
    assert where in {address(piece) for piece in [tars.read(0) for _ in range(21)]}


def test_as_much_memory_is_kept_as_samples_are_held_at_a_time(tmp_path, pack):
    pack(tmp_path)
    tars = Tars(read_index([tmp_path]))
    for _ in range(20):
        held = [tars.read(row) for row in range(8)]
    del held
    used = {address(tars.read(row)) for row in range(8) for _ in range(20)}
    assert len(used) <= 16
    assert all(where % 4096 == 0 for where in used)


def test_several_data_sets_are_joined(tmp_path, pack):
    pack(tmp_path / "a", 5, "a")
    pack(tmp_path / "b", 7, "b")
    index = read_index([tmp_path / "a", tmp_path / "b"])
    assert [index.key(row) for row in range(12)] == [f"a-{n:03d}" for n in range(5)] + [f"b-{n:03d}" for n in range(7)]
    assert index.folder.tolist() == [0] * 5 + [1] * 7
    tars = Tars(index)
    assert all(members(tars.read(row), index.key(row), "") for row in range(12))


def test_the_digest_follows_the_data_and_not_how_the_index_was_written(tmp_path, pack):
    pack(tmp_path)
    before = read_index([tmp_path]).digest
    pq.write_table(
        pq.read_table(tmp_path / "index.parquet"), tmp_path / "index.parquet", row_group_size=3, compression="gzip"
    )
    assert read_index([tmp_path]).digest == before
    rewritten(tmp_path, shard_sha256=["0" * 64] * 14)
    assert read_index([tmp_path]).digest != before


# -- what can be wrong -------------------------------------------------------------------------------------------------


def test_no_index_is_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"index.parquet is missing: give the folder that `pack` wrote"):
        read_index([tmp_path])


def test_an_empty_index_is_a_sentence(tmp_path, pack):
    pack(tmp_path)
    pq.write_table(pq.read_table(tmp_path / "index.parquet").slice(0, 0), tmp_path / "index.parquet")
    with pytest.raises(ValueError, match="does not contain any samples"):
        read_index([tmp_path])


def test_an_index_without_a_column_is_a_sentence(tmp_path, pack):
    pack(tmp_path)
    pq.write_table(pq.read_table(tmp_path / "index.parquet").drop_columns(["frames"]), tmp_path / "index.parquet")
    with pytest.raises(ValueError, match="does not have the column frames"):
        read_index([tmp_path])


def test_missing_tars_are_named_before_the_first_step(tmp_path, pack):
    name = pack(tmp_path)[-1].shard
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        read_index([tmp_path])


def test_a_tar_that_is_cut_off_is_named_before_the_first_step(tmp_path, pack):
    last = pack(tmp_path)[-1]
    os.truncate(tmp_path / last.shard, last.offset + last.bytes - 1)
    with pytest.raises(
        ValueError, match=rf"{last.shard} \(\d+ of \d+ bytes\) truncated before the end of the last sample"
    ):
        read_index([tmp_path])


def test_a_tar_that_goes_away_or_is_cut_off_during_training_is_named(tmp_path, pack):
    last = pack(tmp_path)[-1]
    index = read_index([tmp_path])
    os.truncate(tmp_path / last.shard, last.offset + 100)
    with pytest.raises(
        ValueError,
        match=rf"{last.shard} is truncated: it ends at byte {last.offset + 100}, but the sample {last.clip_id}",
    ):
        Tars(index).read(13)
    (tmp_path / last.shard).unlink()
    with pytest.raises(FileNotFoundError, match=f"{last.shard} is listed in the index but missing"):
        Tars(index).read(13)


@pytest.mark.parametrize(("swap", "what"), [(False, "no tar header"), (True, "the member 'clip-001")])
def test_an_index_that_disagrees_with_its_tar_is_a_sentence(tmp_path, pack, swap, what):
    packed = pack(tmp_path)
    places = [(row.offset, row.bytes) for row in packed]
    places[0], places[1] = (places[1], places[0]) if swap else ((places[0][0] + 512, places[0][1] - 512), places[1])
    rewritten(tmp_path, offset=[offset for offset, _ in places], bytes=[size for _, size in places])
    index = read_index([tmp_path])
    with pytest.raises(LookupError, match=f"at the offset of the sample clip-000 the tar has {what}"):
        members(Tars(index).read(0), index.key(0), index.tar_path(0))


WRONG_ROWS = {
    "negative offset": ({"offset": -512}, r"row 3 \(clip-003\) has -512 for offset"),
    "offset beyond 64 bits": ({"offset": (1 << 63) - 512}, "for offset, outside 0 to"),
    "no bytes": ({"bytes": 0}, "has 0 for bytes"),
    "negative bytes": ({"bytes": -1}, "has -1 for bytes"),
    "more bytes than a process should read": ({"bytes": 1 << 40}, "has 1099511627776 for bytes"),
    "no frames": ({"frames": 0}, "has 0 for frames"),
    "a side that overflows": ({"width": 1 << 20}, "has 1048576 for width"),
    "behind the end of its tar": ({"offset": 1 << 40}, "truncated before the end of the last sample"),
    "over its neighbour": ({"offset": 512}, "overlap in their tar"),
    "nothing for its key": ({"clip_id": None}, "column clip_id is null in 1 rows"),
    "nothing for its offset": ({"offset": None}, "column offset is null in 1 rows"),
}


@pytest.mark.parametrize(("change", "sentence"), WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_an_index_with_a_row_that_makes_no_sense_is_refused_by_row(tmp_path, pack, change, sentence):
    packed = pack(tmp_path)
    ((name, value),) = change.items()
    values = [getattr(row, name) for row in packed]
    values[3] = value
    rewritten(tmp_path, **{name: values})
    with pytest.raises(ValueError, match=sentence):
        read_index([tmp_path])


def test_an_index_that_is_damaged_or_of_other_types_is_refused_by_path(tmp_path, pack):
    pack(tmp_path)
    whole, table = (tmp_path / "index.parquet").read_bytes(), pq.read_table(tmp_path / "index.parquet")
    for data in (whole[: len(whole) // 2], b"", whole[:50] + b"x" * 200 + whole[250:]):
        (tmp_path / "index.parquet").write_bytes(data)
        with pytest.raises(ValueError, match=r"index.parquet"):
            read_index([tmp_path])
    for name, values in {"offset": ["0"] * 14, "frames": [9.0] * 14, "clip_id": list(range(14))}.items():
        other = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
        pq.write_table(other, tmp_path / "index.parquet")
        with pytest.raises(ValueError, match=f"the column {name} has the invalid type"):
            read_index([tmp_path])


def test_a_header_with_a_negative_size_ends_the_search(tmp_path, pack):
    """512 bytes back is where the search came from: it went on for ever."""
    pack(tmp_path)
    piece = bytearray(Tars(read_index([tmp_path])).read(0))
    second = 512 + -(-len(members(memoryview(piece), "clip-000", "")["bg.png"]) // 512) * 512
    piece[second + 124 : second + 135] = b"-0000001000"
    with pytest.raises(ValueError, match=f"damaged header {second} bytes after"):
        members(memoryview(piece), "clip-000", "")


def test_a_member_that_occurs_twice_makes_the_sample_corrupt(tmp_path, pack):
    pack(tmp_path)
    piece = bytes(Tars(read_index([tmp_path])).read(0))
    with pytest.raises(ValueError, match=r"contains two members \.bg\.png"):
        members(memoryview(piece + piece), "clip-000", "")


def test_a_later_header_that_is_damaged_makes_the_sample_corrupt(tmp_path, pack):
    packed = pack(tmp_path)
    index = read_index([tmp_path])
    piece = bytearray(Tars(index).read(0))
    second = 512 + -(-len(members(memoryview(piece), "clip-000", "")["bg.png"]) // 512) * 512
    piece[second : second + 10] = b"\xff" * 10
    with pytest.raises(ValueError, match=f"damaged header {second} bytes after"):
        members(memoryview(piece), packed[0].clip_id, "")


# -- weights -----------------------------------------------------------------------------------------------------------


def test_shares_of_data_sets_hold_whatever_their_sizes(tmp_path, pack):
    pack(tmp_path / "a", 4, "a")
    pack(tmp_path / "b", 12, "b")
    index = read_index([tmp_path / "a", tmp_path / "b"])
    weights = mixture_weights(index, {0: 3, 1: 1}, None)
    assert weights[:4].sum() == pytest.approx(12)
    assert weights.sum() == pytest.approx(16)
    within = mixture_weights(index, {0: 1, 1: 1}, np.r_[1, 0, 0, 1, np.ones(12)])
    assert within[:4].tolist() == [4, 0, 0, 4]
    assert mixture_weights(index, {0: 0, 1: 1}, None)[:4].tolist() == [0] * 4
    with pytest.raises(ValueError, match="has a share of 1, but all its samples have weight 0"):
        mixture_weights(index, {0: 1, 1: 1}, np.r_[np.zeros(4), np.ones(12)])


def test_rare_roles_weigh_more_by_the_root_of_their_frequency():
    table = pa.table({"roles": [["human"]] * 16 + [["object"]] * 4 + [["human", "object"]] * 4 + [[]]})
    weights = balanced_weights(table)
    human, thing = (20 / 25) ** -0.5, (8 / 25) ** -0.5
    assert weights[16] / weights[0] == pytest.approx(thing / human)
    assert weights[20] / weights[0] == pytest.approx((thing + human) / 2 / human)
    assert weights[24] == pytest.approx(weights[0])
    assert weights.mean() == pytest.approx(1)
    assert balanced_weights(table, power=0).tolist() == [1] * 25


def test_any_column_of_words_can_be_balanced():
    table = pa.table({"license": ["CC0"] * 3 + ["CC BY"]})
    assert np.allclose(balanced_weights(table, "license", power=1), [2 / 3] * 3 + [2])


def test_risky_samples_weigh_less():
    assert copy_filter_weights(pa.table({"copy_risk": [0.0, 0.5, 1.0]}), power=2).tolist() == [1, 0.25, 0]


def test_samples_without_a_reference_of_the_roles_are_not_usable(tmp_path, pack):
    pack(tmp_path)
    assert rows_with_roles(read_index([tmp_path]), ()) is None
    assert rows_with_roles(read_index([tmp_path]), ("object",)).tolist() == [n % 2 == 1 for n in range(14)]
    rewritten(tmp_path, roles=[[]] * 2 + [["human"]] * 12)
    assert rows_with_roles(read_index([tmp_path]), ()).tolist() == [False] * 2 + [True] * 12
