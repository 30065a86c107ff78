"""What `retrieve` keeps for its next run: the neighbours of each element, and a fingerprint of all inputs of a target's result.

Both are derived data. Neighbour lists are found by the hash of an element's id and embedding: new elements are compared with all
others, and earlier ones with the new. The result for a target depends on its own element, on those of its identity and on its
nearest neighbour. Their pictures, masks and thumbnails do not change as long as the parts of their shards do not. If the
fingerprint of all this is the same, the rows of the earlier part are reused.
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
from stages.retrieve.join import NONE, neighbour
from stages.retrieve.judge import floor_to_step
from stages.retrieve.nearest import top_k_codes

ROWS_PER_BATCH = 65536  # neighbour lists that are brought up to date at a time
SHARDS_PER_BATCH = 64  # parts whose rows are brought up to date at a time: their elements are searched once


def hash_texts(texts: Sequence[str], vectors: np.ndarray | None = None) -> np.ndarray:
    """Return a 64-bit hash of each text, (n,) uint64, and of the vector with it, (n, d)."""
    data = [text.encode() for text in texts]
    if vectors is not None and len(data):
        vector_bytes = np.ascontiguousarray(vectors).view(f"V{vectors.itemsize * vectors.shape[1]}").ravel()
        data = [b"%b\0%b" % pair for pair in zip(data, vector_bytes.tolist(), strict=True)]
    digests = b"".join([hashlib.blake2b(item, digest_size=8).digest() for item in data])
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def hash_rows(*columns: np.ndarray) -> np.ndarray:
    """Return a hash of each row of columns of 64 bits, (n,) uint64 (the finaliser of SplitMix64, Steele et al. 2014)."""
    state: Any = np.uint64(0)
    with np.errstate(over="ignore"):
        for column in columns:
            x = state * np.uint64(0x9E3779B97F4A7C15) + np.ascontiguousarray(column).view(np.uint64)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = x ^ (x >> np.uint64(31))
    return state


class Neighbours:
    """Neighbour lists by group."""

    def __init__(self, earlier: Earlier | None, k: int):
        self.earlier, self.k = earlier, k
        self.previous: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # group -> hashes, lists
        self.tables: list[pa.Table] = []
        table = earlier.load(f"neighbours-{k}") if earlier is not None else None
        if table is not None and len(table):
            names = table["group"].combine_chunks().dictionary_encode()
            group = names.indices.to_numpy()
            first = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
            element = table["element"].to_numpy()
            lists = pc.list_flatten(table["codes"]).to_numpy().reshape(-1, k)
            for begin, end in zip(first, [*first[1:], len(group)], strict=True):
                self.previous[names.dictionary[int(group[begin])].as_py()] = element[begin:end], lists[begin:end]

    def codes(
        self,
        name: str,
        vectors: np.ndarray,
        clips: np.ndarray,
        ids: pa.ChunkedArray,
        ann_min_elements: int,
        **search_options: Any,
    ) -> np.ndarray:
        """Return the neighbours of each element of a group, as stages.retrieve.nearest.top_k_codes does."""
        if self.earlier is None or (ann_min_elements and len(vectors) >= ann_min_elements):
            search_options["ann_min_elements"] = ann_min_elements
            return top_k_codes(vectors, vectors, self.k, clips, clips, **search_options)
        element = hash_texts(ids.to_pylist(), vectors)
        codes = update_neighbours(
            element, vectors, clips, self.k, *self.previous.get(name, (None, None)), **search_options
        )
        lists = pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), self.k)
        names = pa.DictionaryArray.from_arrays(np.zeros(len(codes), np.int32), [name]).cast(pa.string())
        self.tables.append(pa.table({"group": names, "element": element, "codes": lists}))
        return codes

    def save(self) -> None:
        """Keep the lists of all groups for the next run."""
        if self.earlier is not None and self.tables:
            self.earlier.save(f"neighbours-{self.k}", pa.concat_tables(self.tables))


def update_neighbours(
    element: np.ndarray,
    vectors: np.ndarray,
    clips: np.ndarray,
    k: int,
    old: np.ndarray | None,
    lists: np.ndarray | None,
    **search_options: Any,
) -> np.ndarray:
    """Return the k nearest neighbours of each element, (n, k) codes.

    element: (n,) hashes, in the order of the ids; old, lists: (m,) and (m, k), the same for the earlier elements. A list
    without a lost neighbour holds the nearest of the earlier elements, so only new ones can enter it. Other lists are rebuilt.
    """
    codes = np.full((len(element), k), NONE)
    incomplete = np.ones(len(element), bool)
    moved = complete = np.empty(0, np.int64)
    if old is not None and lists is not None:
        order = np.argsort(element)
        position = np.minimum(np.searchsorted(element, old, sorter=order), len(element) - 1)
        moved = np.where(
            element[order[position]] == old, order[position], -1
        )  # earlier index -> index; both in the order of the ids
        incomplete[moved[moved >= 0]] = False
        for start in range(0, len(old), ROWS_PER_BATCH):
            part = np.arange(start, min(start + ROWS_PER_BATCH, len(old)))
            part = part[moved[part] >= 0]
            old_codes = lists[part]
            present = old_codes > NONE
            old_index = np.where(present, neighbour(old_codes), 0)
            new_index = moved[old_index]
            has_lost = (present & (new_index < 0)).any(1)
            codes[moved[part]] = np.where(present, old_codes + old_index - new_index, NONE)
            incomplete[moved[part[has_lost]]] = True
        complete = np.flatnonzero(~incomplete)
    new = np.setdiff1d(np.arange(len(element)), moved)
    if incomplete.any():
        codes[incomplete] = top_k_codes(vectors[incomplete], vectors, k, clips[incomplete], clips, **search_options)
    for start in range(0, len(complete) if len(new) else 0, ROWS_PER_BATCH):
        part = complete[start : start + ROWS_PER_BATCH]
        found = top_k_codes(vectors[part], vectors[new], min(k, len(new)), clips[part], clips[new], **search_options)
        present = found > NONE
        index = np.where(present, neighbour(found), 0)
        found = np.where(present, found + index - new[index], NONE)
        codes[part] = np.sort(np.concatenate([codes[part], found], axis=1), axis=1)[:, : -k - 1 : -1]
    return codes


def fingerprints(
    corpus: Corpus,
    group_of: Groups,
    targets: Targets,
    component: np.ndarray,
    earlier: Earlier,
    min_margin: float,
) -> pa.Table:
    """Return a table of the targets: "shard", "element", a hash of the id, and two fingerprints.

    "decided_by" covers what decides about a target, "exact" also its component, the first table of its shard, and the recorded
    margins of its identity, which may change when an unrelated cluster grows. component: (n,) names.
    """
    ids = hash_texts(corpus.column("element_id", np.arange(len(corpus.elements))).to_pylist())
    shards, code = np.unique(corpus.shards, return_inverse=True)
    content = hash_rows(ids, hash_texts([earlier.digests[shard] for shard in shards.tolist()])[code])
    first_table = hash_texts([earlier.first[shard] for shard in shards.tolist()])[code]
    decided_by, exact = np.ones((2, len(content)), np.uint64)
    for group in group_of.groups:
        clustering = group.clustering
        order = np.argsort(clustering.cluster, kind="stable")
        first = np.flatnonzero(np.r_[True, np.diff(clustering.cluster[order]) > 0])
        nearest, similarity = group.nearest_in_any_cluster(np.arange(len(group.rows)))
        near = hash_rows(np.where(nearest < 0, np.uint64(0), content[nearest]), similarity)
        margin = floor_to_step(clustering.margin, min_margin * (1 - group.min_similarity))
        above_margin = (margin >= min_margin * (1 - group.min_similarity)).astype(np.uint64)
        member = hash_rows(content[group.rows], clustering.cohesion, above_margin)
        for hashes, member_hash in ((decided_by, member), (exact, hash_rows(member, margin))):
            with np.errstate(over="ignore"):
                cluster = hash_rows(np.add.reduceat(member_hash[order], first), group.identities)
            hashes[group.rows] = hash_rows(
                member_hash, cluster[clustering.cluster], near, np.full(len(near), group.min_similarity)
            )
    names, code = np.unique(component.astype(str), return_inverse=True)
    singleton = np.uint64(1)
    identity_decided_by = np.where(targets.identified_by < 0, singleton, decided_by[targets.identified_by])
    identity_exact = np.where(targets.identified_by < 0, singleton, exact[targets.identified_by])
    columns = {
        "shard": corpus.shards[targets.rows],
        "element": ids[targets.rows],
        "decided_by": hash_rows(content[targets.rows], identity_decided_by),
        "exact": hash_rows(identity_exact, hash_texts(names.tolist())[code], first_table[targets.rows]),
    }
    return pa.table(columns)


def reuse_unchanged(
    earlier: Earlier, current: pa.Table, element_ids: list[str], refresh: Callable[[pa.Table], pa.Table]
) -> tuple[np.ndarray, list[pa.Table | Reject]]:
    """Return which targets have the earlier result, (n,) bool, and these results.

    The part of a shard in which nothing has changed is kept. current: of `fingerprints`; element_ids: (n,); refresh: updates
    margins and components of earlier rows.
    """
    previous = earlier.load("targets", earlier.key)
    earlier.save_last("targets", current)
    reused = np.zeros(len(current), bool)
    kept: list[pa.Table | Reject] = []
    tables: list[pa.Table] = []
    if previous is None or not len(previous):
        return reused, kept
    shard, element, decided_by, exact = (column.to_numpy() for column in current.columns)
    old_shard, old_element, old_decided_by, old_exact = (column.to_numpy() for column in previous.columns)
    order = np.argsort(old_element)
    position = order[np.minimum(np.searchsorted(old_element, element, sorter=order), len(order) - 1)]
    same = (old_element[position] == element) & (old_shard[position] == shard)
    same &= old_decided_by[position] == decided_by
    unchanged = same & (old_exact[position] == exact)
    for number in np.unique(shard[same]).tolist():
        in_shard = np.flatnonzero(shard == number)
        same_targets = unchanged[in_shard].all() and len(in_shard) == np.count_nonzero(old_shard == number)
        if same_targets and earlier.keep(number):
            reused[in_shard] = True
            continue
        earlier_rows = earlier.rows(number)
        if earlier_rows is None:
            continue
        table, rejects = earlier_rows
        index = {element_ids[n]: n for n in in_shard[same[in_shard]].tolist()}
        rows = table.filter(pc.is_in(table["element_id"], pa.array(list(index), pa.string())))
        # the text of a rejection contains margins
        kept_rejects = [reject for reject in rejects if reject.key in index and unchanged[index[reject.key]]]
        tables.append(rows)
        kept += kept_rejects
        keys = (*rows["element_id"].to_pylist(), *(reject.key for reject in kept_rejects))
        reused[[index[key] for key in keys]] = True
    for start in range(0, len(tables), SHARDS_PER_BATCH):
        kept.append(refresh(pa.concat_tables(tables[start : start + SHARDS_PER_BATCH])))
    return reused, kept


def with_margins_and_components(rows: pa.Table, margin: np.ndarray, component: np.ndarray) -> pa.Table:
    """Return references with these margins and components, one for each row."""
    lists = rows["rules"].combine_chunks()
    rules, owner = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()
    columns = [pc.struct_field(rules, n) for n in range(rules.type.num_fields)]
    is_margin = pc.equal(columns[0], "margin").to_numpy(zero_copy_only=False)
    value = columns[1].to_numpy().copy()
    value[is_margin] = floor_to_step(margin[owner[is_margin]], columns[2].to_numpy()[is_margin])
    new_rules = pa.StructArray.from_arrays([columns[0], pa.array(value), *columns[2:]], fields=list(rules.type))
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).to_numpy())]).astype(np.int32)
    replaced = {
        "rules": pa.ListArray.from_arrays(pa.array(offsets), new_rules, type=lists.type),
        "component": pa.array(component, pa.string()),
    }
    return pa.table([replaced.get(name, rows[name]) for name in rows.column_names], schema=rows.schema)
