"""Rows of other shards, by id."""

from dataclasses import dataclass

from a2data.lookup import Lookup
from a2data.records import Kept
from a2data.store import Store


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
