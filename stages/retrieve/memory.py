"""What `retrieve` keeps for the next time: the neighbours of each element, and a fingerprint of all that decided about a target.

Both are derived data. Neighbour lists are found again by the hash of an element's id and embedding: elements that are new are
compared with all others, and old ones with the new. The result about a target depends on its own element, on those of its
identity and on its nearest neighbour. Their pictures, masks and thumbnails do not change as long as the parts of their shards do
not. If the fingerprint of all this is the same, the rows of the earlier part are taken over.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data.records import Reject
from a2data.store.earlier import Earlier
from stages.retrieve.candidates import Groups, Targets
from stages.retrieve.corpus import Corpus
from stages.retrieve.join import NONE, SHIFT
from stages.retrieve.judge import recorded
from stages.retrieve.nearest import top_k_codes

ROWS = 65536  # neighbour lists that are brought up to date at a time
SHARDS = 64  # parts whose rows are brought up to date at a time: their elements are searched once


def hashed(texts: Sequence[str], vectors: np.ndarray | None = None) -> np.ndarray:
    """Return a 64-bit hash of each text, (n,) uint64, and of the vector with it, (n, d)."""
    data = [text.encode() for text in texts]
    if vectors is not None and len(data):
        wide = np.ascontiguousarray(vectors).view(f"V{vectors.itemsize * vectors.shape[1]}").ravel()
        data = [b"%b\0%b" % both for both in zip(data, wide.tolist(), strict=True)]
    digests = b"".join([hashlib.blake2b(one, digest_size=8).digest() for one in data])
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def mixed(*columns: np.ndarray) -> np.ndarray:
    """Return a hash of each row of columns of 64 bits, (n,) uint64 (the finaliser of SplitMix64, Steele et al. 2014)."""
    out: Any = np.uint64(0)
    with np.errstate(over="ignore"):
        for column in columns:
            x = out * np.uint64(0x9E3779B97F4A7C15) + np.ascontiguousarray(column).view(np.uint64)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            out = x ^ (x >> np.uint64(31))
    return out


class Neighbours:
    """Neighbour lists by group."""

    def __init__(self, earlier: Earlier | None, k: int):
        self.earlier, self.k = earlier, k
        self.known: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # group -> hashes, lists
        self.found: list[pa.Table] = []
        table = earlier.load(f"neighbours-{k}") if earlier is not None else None
        if table is not None and len(table):
            names = table["group"].combine_chunks().dictionary_encode()
            group = names.indices.to_numpy()
            first = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
            element = table["element"].to_numpy()
            lists = pc.list_flatten(table["codes"]).to_numpy().reshape(-1, k)
            for begin, end in zip(first, [*first[1:], len(group)], strict=True):
                self.known[names.dictionary[int(group[begin])].as_py()] = element[begin:end], lists[begin:end]

    def codes(
        self, name: str, vectors: np.ndarray, clips: np.ndarray, ids: pa.ChunkedArray, ann_min_elements: int, **how: Any
    ) -> np.ndarray:
        """Return the neighbours of each element of a group, as stages.retrieve.nearest.top_k_codes does."""
        if self.earlier is None or (ann_min_elements and len(vectors) >= ann_min_elements):
            how["ann_min_elements"] = ann_min_elements
            return top_k_codes(vectors, vectors, self.k, clips, clips, **how)
        element = hashed(ids.to_pylist(), vectors)
        codes = updated(element, vectors, clips, self.k, *self.known.get(name, (None, None)), **how)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), self.k)
        names = pa.DictionaryArray.from_arrays(np.zeros(len(codes), np.int32), [name]).cast(pa.string())
        self.found.append(pa.table({"group": names, "element": element, "codes": lists}))
        return codes

    def save(self) -> None:
        """Keep the lists of all groups for the next time."""
        if self.earlier is not None and self.found:
            self.earlier.save(f"neighbours-{self.k}", pa.concat_tables(self.found))


def updated(
    element: np.ndarray,
    vectors: np.ndarray,
    clips: np.ndarray,
    k: int,
    old: np.ndarray | None,
    lists: np.ndarray | None,
    **how: Any,
) -> np.ndarray:
    """Return the k nearest neighbours of each element, (n, k) codes.

    element: (n,) hashes, in the order of the ids; old, lists: (m,) and (m, k), the same for the earlier elements. A list
    without a lost neighbour holds the nearest of the earlier elements, so only new ones can enter it. Others are made anew.
    """
    codes = np.full((len(element), k), NONE)
    late = np.ones(len(element), bool)
    moved = place = np.empty(0, np.int64)
    if old is not None and lists is not None:
        order = np.argsort(element)
        at = np.minimum(np.searchsorted(element, old, sorter=order), len(element) - 1)
        moved = np.where(
            element[order[at]] == old, order[at], -1
        )  # earlier index -> index; both in the order of the ids
        late[moved[moved >= 0]] = False
        for start in range(0, len(old), ROWS):
            part = np.arange(start, min(start + ROWS, len(old)))
            part = part[moved[part] >= 0]
            told = lists[part]
            there = told > NONE
            before = np.where(there, SHIFT - 1 - told % SHIFT, 0)
            after = moved[before]
            lost = (there & (after < 0)).any(1)
            codes[moved[part]] = np.where(there, told + before - after, NONE)
            late[moved[part[lost]]] = True
        place = np.flatnonzero(~late)
    new = np.setdiff1d(np.arange(len(element)), moved)
    if late.any():
        codes[late] = top_k_codes(vectors[late], vectors, k, clips[late], clips, **how)
    for start in range(0, len(place) if len(new) else 0, ROWS):
        part = place[start : start + ROWS]
        found = top_k_codes(vectors[part], vectors[new], min(k, len(new)), clips[part], clips[new], **how)
        there = found > NONE
        index = np.where(there, SHIFT - 1 - found % SHIFT, 0)
        found = np.where(there, found + index - new[index], NONE)
        codes[part] = np.sort(np.concatenate([codes[part], found], axis=1), axis=1)[:, : -k - 1 : -1]
    return codes


def fingerprints(
    corpus: Corpus,
    group_of: Groups,
    asked: Targets,
    component: np.ndarray,
    earlier: Earlier,
    min_margin: float,
) -> pa.Table:
    """Return a table of the targets: "shard", "element", a hash of the id, and two fingerprints.

    "decided_by" covers what decides about a target, "exact" also its component, the first table of its shard, and the recorded
    margins of its identity, which may change when an unrelated cluster grows. component: (n,) names.
    """
    ids = hashed(corpus.column("element_id", np.arange(len(corpus.traits))).to_pylist())
    shards, code = np.unique(corpus.shards, return_inverse=True)
    content = mixed(ids, hashed([earlier.digests[shard] for shard in shards.tolist()])[code])
    first_table = hashed([earlier.first[shard] for shard in shards.tolist()])[code]
    decided_by, exact = np.ones((2, len(content)), np.uint64)
    for group in group_of.groups:
        found = group.found
        order = np.argsort(found.cluster, kind="stable")
        first = np.flatnonzero(np.r_[True, np.diff(found.cluster[order]) > 0])
        nearest, likeness = group.nearest(np.arange(len(group.rows)))
        near = mixed(np.where(nearest < 0, np.uint64(0), content[nearest]), likeness)
        margin = recorded(found.margin, min_margin * (1 - group.min_similarity))
        sure = (margin >= min_margin * (1 - group.min_similarity)).astype(np.uint64)
        member = mixed(content[group.rows], found.cohesion, sure)
        for out, each in ((decided_by, member), (exact, mixed(member, margin))):
            with np.errstate(over="ignore"):
                cluster = mixed(np.add.reduceat(each[order], first), group.identities)
            out[group.rows] = mixed(each, cluster[found.cluster], near, np.full(len(near), group.min_similarity))
    names, code = np.unique(component.astype(str), return_inverse=True)
    alone = np.uint64(1)
    known = np.where(asked.known_by < 0, alone, decided_by[asked.known_by])
    told = np.where(asked.known_by < 0, alone, exact[asked.known_by])
    columns = {
        "shard": corpus.shards[asked.rows],
        "element": ids[asked.rows],
        "decided_by": mixed(content[asked.rows], known),
        "exact": mixed(told, hashed(names.tolist())[code], first_table[asked.rows]),
    }
    return pa.table(columns)


def unchanged(
    earlier: Earlier, marks: pa.Table, element_ids: list[str], refreshed: Callable[[pa.Table], pa.Table]
) -> tuple[np.ndarray, list[pa.Table | Reject]]:
    """Return which targets have the earlier result, (n,) bool, and these results.

    A shard in which nothing has changed is left as it is. marks: of `fingerprints`; element_ids: (n,); refreshed: brings margins
    and components of earlier rows up to date.
    """
    before = earlier.load("targets", earlier.key)
    earlier.save_last("targets", marks)
    done = np.zeros(len(marks), bool)
    kept: list[pa.Table | Reject] = []
    tables: list[pa.Table] = []
    if before is None or not len(before):
        return done, kept
    shard, element, decided_by, exact = (column.to_numpy() for column in marks.columns)
    old_shard, old_element, old_decided_by, old_exact = (column.to_numpy() for column in before.columns)
    order = np.argsort(old_element)
    at = order[np.minimum(np.searchsorted(old_element, element, sorter=order), len(order) - 1)]
    same = (old_element[at] == element) & (old_decided_by[at] == decided_by) & (old_shard[at] == shard)
    whole = same & (old_exact[at] == exact)
    for number in np.unique(shard[same]).tolist():
        mine = np.flatnonzero(shard == number)
        if whole[mine].all() and len(mine) == np.count_nonzero(old_shard == number) and earlier.keep(number):
            done[mine] = True
            continue
        found = earlier.rows(number)
        if found is None:
            continue
        table, rejects = found
        index = {element_ids[n]: n for n in mine[same[mine]].tolist()}
        rows = table.filter(pc.is_in(table["element_id"], pa.array(list(index), pa.string())))
        # a rejection names margins in its text
        told = [reject for reject in rejects if reject.key in index and whole[index[reject.key]]]
        tables.append(rows)
        kept += told
        done[[index[key] for key in (*rows["element_id"].to_pylist(), *(reject.key for reject in told))]] = True
    for start in range(0, len(tables), SHARDS):
        kept.append(refreshed(pa.concat_tables(tables[start : start + SHARDS])))
    return done, kept


def with_current(rows: pa.Table, margin: np.ndarray, component: np.ndarray) -> pa.Table:
    """Return references with these margins and components, one for each row."""
    lists = rows["rules"].combine_chunks()
    rules, owner = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()
    columns = [pc.struct_field(rules, n) for n in range(rules.type.num_fields)]
    mine = pc.equal(columns[0], "margin").to_numpy(zero_copy_only=False)
    value = columns[1].to_numpy().copy()
    value[mine] = recorded(margin[owner[mine]], columns[2].to_numpy()[mine])
    made = pa.StructArray.from_arrays([columns[0], pa.array(value), *columns[2:]], fields=list(rules.type))
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).to_numpy())]).astype(np.int32)
    new = {
        "rules": pa.ListArray.from_arrays(pa.array(offsets), made, type=lists.type),
        "component": pa.array(component, pa.string()),
    }
    return pa.table([new.get(name, rows[name]) for name in rows.column_names], schema=rows.schema)
