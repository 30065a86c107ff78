"""A corpus that grows and shrinks is paired as if it had been whole from the beginning."""

import shutil
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_looks import direction, like, look, person, pictured, take

from a2data.job import run_job
from a2data.records import ClipThumbs, Element, Match
from a2data.store.lookup import ELEMENT_TABLES
from a2data.store.tables import Store
from stages.retrieve.join import decode
from stages.retrieve.judge import floor_to_step
from stages.retrieve.memory import hash_texts, update_neighbours
from stages.retrieve.nearest import top_k_codes
from stages.retrieve.stage import Retrieve

STAGE = Retrieve(min_face=0.7, min_object=0.7, min_part=0.7, min_background=0.7, top_k=3)


def video(number):
    """Two clips with people, their garments and a cup each; a third of all videos are another take of one clip's footage."""
    rng = np.random.default_rng(number)
    elements, takes = [], []
    for clip in (f"v{number}a", f"v{number}b"):
        for n, who in enumerate(rng.choice(4, 2, replace=False)):
            human, face = person(clip, like(direction(int(who)), [number, n, ord(clip[-1])], 0.5), n)
            coat = like(direction(20 + int(who) % 2), [number, n], 0.3)
            elements += [human, face]
            elements += [
                look(clip, "upper", n, coat, human.element_id, attributes=[f"colour={'red' if who else 'blue'}"])
            ]
        elements.append(look(clip, "object", 0, like(direction(30), [number], 0.7), label=f"cup {number % 2}"))
        footage = np.random.default_rng(number % 3 if clip[-1] == "a" else [9, number])
        takes.append(take(clip, f"v{number}", thumbs=footage.integers(0, 256, (7, 18, 24), dtype=np.uint8)))
    return elements, takes


def arrive(store, number):
    """Write the shard of a video."""
    elements, takes = video(number)
    matched = [e for e in elements if e.kind in ("human", "object")]
    rows = {
        "match": (Match, [Match(e.clip_id, e.element_id, "it", 0, 2, 1.0, 1.0) for e in matched]),
        "segment": (ClipThumbs, takes),
    }
    for name, kinds in ELEMENT_TABLES.items():
        ids = [e.element_id for e in elements if e.kind in kinds and (name != "ground")]
        rows[name] = Element, list(pictured(elements, takes)(name, number, "element_id", ids).values())
    for name, (record, found) in rows.items():
        with store.create(name, record, number) as part:
            part.add(found)
            part.commit()


def leave(store, number):
    for name in (*ELEMENT_TABLES, "match", "segment", "retrieve"):
        store.remove(name, f"{number:05d}.parquet")


def pair(store, stage=STAGE):
    job = tuple(store.shards("match"))
    run_job([stage], [None], store, job)
    assert store.is_up_to_date(stage, job)
    footers = {shard: store.footer("retrieve", shard) for shard in job}
    return {shard: (f.digest, sorted(map(str, f.rejected)), f.num_inputs) for shard, f in footers.items()}


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=2, max_size=7), st.integers(1, 3))
def test_videos_that_come_and_go_in_any_order_are_paired_as_from_scratch(tmp_path_factory, events, at_once):
    """A video that is there already leaves."""
    store = Store(tmp_path_factory.mktemp("grown"))
    there = set()
    for first in range(0, len(events), at_once):
        for number in events[first : first + at_once]:
            (leave if number in there else arrive)(store, number)
            there ^= {number}
        if there:
            grown = pair(store)
            shutil.move(f"{store.root}/retrieve", f"{store.root}/grown")
            assert grown == pair(store)
            shutil.rmtree(f"{store.root}/retrieve")
            shutil.move(f"{store.root}/grown", f"{store.root}/retrieve")


def test_the_same_when_nothing_is_removed_in_between(tmp_path):
    grown, whole = Store(tmp_path / "grown"), Store(tmp_path / "whole")
    for number in (5, 2, 7, 0, 3):
        arrive(grown, number)
        last = pair(grown)
        arrive(whole, number)
    assert last == pair(whole)


def stamps(store):
    return {name: stamp for name, *stamp in zip(*store.listing("retrieve"), strict=True) if name.endswith(".parquet")}


def test_a_stranger_leaves_every_part_as_it_is(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for number in range(4):
        arrive(store, number)
    pair(store)
    before = stamps(store)
    monkeypatch.setattr(Retrieve, "references_or_rejections", None)  # fails if anything is judged
    for name, record in {**dict.fromkeys(ELEMENT_TABLES, Element), "match": Match, "segment": ClipThumbs}.items():
        with store.create(name, record, 9) as part:  # a shard in which nothing was found
            part.commit()
    pair(store)
    assert {name: stamp for name, stamp in stamps(store).items() if name in before} == before


def test_other_settings_make_everything_anew_and_a_damaged_memory_is_not_used(tmp_path, caplog):
    store = Store(tmp_path)
    for number in range(4):
        arrive(store, number)
    first = pair(store)
    assert pair(store, replace(STAGE, min_quality=0.9)) != first
    for name in ("targets", f"neighbours-{STAGE.top_k}"):
        data = store.get("retrieve", f"{name}.kept")
        store.put(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:], "retrieve", f"{name}.kept")
    assert pair(store) == first
    assert "is damaged" in caplog.text


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 59)), st.sets(st.integers(0, 59), min_size=1), st.integers(1, 9))
def test_neighbours_brought_up_to_date_are_those_of_a_new_search(before, after, k):
    x = np.stack([like(direction(n % 5), n, 0.8) for n in range(60)])
    clips = np.arange(60) // 2
    element = hash_texts([str(n) for n in range(60)], x)
    old, new = (np.array(sorted(rows), int) for rows in (before, after))
    lists = top_k_codes(x[old], x[old], k, clips[old], clips[old])
    found = update_neighbours(element[new], x[new], clips[new], k, element[old], lists)
    expected = top_k_codes(x[new], x[new], k, clips[new], clips[new])
    assert decode(found)[1].tolist() == decode(expected)[1].tolist()
    assert found.tolist() == expected.tolist()


@given(st.floats(-2, 2), st.floats(-1, 1))
def test_a_recorded_margin_is_on_the_same_side_of_its_limit_and_at_most_a_step_below(margin, low):
    told = float(floor_to_step(np.array(margin), low))
    assert (told >= low) == (margin >= low)
    assert told <= margin + 1e-12
    assert margin - told < 0.01 + 1e-12


def test_a_margin_whose_fifth_decimal_moves_is_recorded_as_before():
    margin = np.array([0.05123, 0.31416, np.inf, -np.inf])
    assert floor_to_step(margin + 1e-5, 0.06).tolist() == floor_to_step(margin, 0.06).tolist()
