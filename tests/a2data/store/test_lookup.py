"""Rows of other shards, by id."""

from dataclasses import dataclass

from a2data.records import Kept
from a2data.store.lookup import Lookup, element_row
from a2data.store.tables import Store


@dataclass(frozen=True)
class Name:
    clip_id: str


def test_rows_are_found_by_value_in_the_shard_that_is_named(tmp_path):
    store = Store(tmp_path)
    for shard in (0, 1):
        store.write("cut", shard, Kept, [Kept(f"{shard}-{n:08d}", str(shard)) for n in range(40)])
    lookup = Lookup(store, {"cut": Kept})

    found = lookup("cut", 1, "clip_id", ["1-00000003", "1-00000039", "0-00000000", "nobody"])

    assert found == {name: Kept(name, "1") for name in ("1-00000003", "1-00000039")}
    assert lookup("cut", 0, "clip_id", ["0-00000000"], Name) == {"0-00000000": Name("0-00000000")}


def test_of_rows_with_the_same_value_the_first_is_found(tmp_path):
    store = Store(tmp_path)
    store.write("cut", 0, Kept, [Kept("a", "v"), Kept("b", "v")])

    assert Lookup(store, {"cut": Kept})("cut", 0, "video_id", ["v"]) == {"v": Kept("a", "v")}


def test_an_element_is_found_in_whichever_table_of_its_kind_has_it(tmp_path):
    store = Store(tmp_path)
    for stage, clip in (("detect", "a"), ("ground", "b"), ("parse", "c")):
        store.write(stage, 0, Kept, [Kept(clip, "v")])
    rows = Lookup(store, dict.fromkeys(("detect", "ground", "parse"), Kept))

    def lookup(stage, shard, column, values, record=None):  # these rows have another id
        return rows(stage, shard, "clip_id", values, record)

    assert [element_row(lookup, kind, 0, name) for kind, name in (("object", "a"), ("object", "b"), ("hair", "c"))] == [
        Kept("a", "v"), Kept("b", "v"), Kept("c", "v")
    ]  # fmt: skip
    assert element_row(lookup, "object", 0, "b", Name) == Name("b")
    assert element_row(lookup, "human", 0, "b") is None
