import itertools
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save
from torch.utils.data import DataLoader

from a2data.dataset import reader as tars
from a2data.dataset.loader import Augmentation, Bucket, Loader, Phase, balanced_weights
from a2data.store.folder import Folder

WIDE, TALL = Bucket(5, 16, 24), Bucket(5, 24, 16)
CHANCES = Augmentation(caption_drop=0.3, short_caption=0.3, reference_drop=0.2, single_reference=0.3, shuffle=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory, pack):
    folder = tmp_path_factory.mktemp("packed")
    pack(folder)
    return folder


def loader(data, **options):
    return Loader(data, **{"seed": 3, "global_batch_size": 4, "buckets": [WIDE, TALL], "view": "bytes"} | options)


def take(reader, count):
    return list(itertools.islice(reader, count))


def keys(batches):
    return [[sample.key for sample in batch] for batch in batches]


def flat(batches):
    return list(itertools.chain.from_iterable(batches))


def together(ranks):
    """Global batches, from those of each rank."""
    return [flat(batch) for batch in zip(*ranks, strict=True)]


def read(data, ranks, count, state=None, **options):
    """The next global batches on so many ranks, and the state behind them."""
    readers = [loader(data, rank=rank, world_size=ranks, **options) for rank in range(ranks)]
    if state:
        for reader in readers:
            reader.load_state_dict(state)
    batches = together([keys(take(reader, count)) for reader in readers])
    states = [reader.state_dict() for reader in readers]
    assert all(s == states[0] for s in states)
    return batches, states[0]


# -- the same samples in the same order --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_and_workers_change_nothing_and_an_interruption_neither(data, ranks, workers):
    expected = keys(take(loader(data), 8))
    begun, state = read(data, ranks, 3, num_workers=workers)
    elsewhere, state = read(data, {1: 4, 2: 1, 4: 2}[ranks], 2, state)
    back, _ = read(data, ranks, 3, state, num_workers=(workers + 1) % 3)
    assert begun + elsewhere + back == expected


def test_an_interruption_anywhere_changes_nothing(data):
    expected = keys(take(loader(data), 9))
    for cut in range(9):
        begun, state = read(data, 1, cut)
        assert begun + read(data, 2, 9 - cut, state)[0] == expected


def test_an_epoch_has_no_sample_twice_and_drops_only_tails(data):
    reader = loader(data)
    count = Counter(flat(keys(take(reader, 3))))  # 10 wide ones and 4 upright ones: 2 batches and 1
    assert reader.state_dict()["epoch"] == 1
    assert len(count) == 12
    assert set(count.values()) == {1}


def test_the_state_is_what_was_consumed_and_not_what_workers_read_ahead(data):
    reader = loader(data, num_workers=2, prefetch=8)
    batches = iter(reader)
    assert reader.state_dict() | {"plan": ""} == {"epoch": 0, "batch": 0, "plan": ""}
    next(batches)
    assert reader.state_dict() | {"plan": ""} == {"epoch": 0, "batch": 1, "plan": ""}
    assert keys([next(iter(reader))]) == keys([loader(data).batch(1)])


def test_pictures_words_and_draws_are_the_same_too(data):
    options = {"view": "raw", "augmentation": CHANCES}
    here = flat(take(loader(data, **options), 4))
    there = [[take(loader(data, rank=r, world_size=2, num_workers=w, **options), 4) for r in (0, 1)] for w in (0, 2)]
    for other in (flat(together(ranks)) for ranks in there):
        for a, b in zip(here, other, strict=True):
            assert (a.key, a.epoch, a.index, a.caption, a.reference_names) == (
                b.key,
                b.epoch,
                b.index,
                b.caption,
                b.reference_names,
            )
            assert a.facts == b.facts
            assert np.array_equal(a.video, b.video)
            assert all(np.array_equal(x.picture, y.picture) for x, y in zip(a.references, b.references, strict=True))
    assert len({(s.caption == "", len(s.references)) for s in here}) > 2


def test_torchs_own_generator_is_left_alone(data):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    take(loader(data, num_workers=1), 1)
    assert torch.equal(before, torch.get_rng_state())


def test_a_plain_torch_dataloader_gets_the_same(data):
    reader = loader(data)
    theirs = take(DataLoader(reader, batch_size=None, num_workers=2, collate_fn=names_and_steps), 5)
    assert [names for names, _ in theirs] == keys(take(loader(data), 5))
    reader.load_state_dict(reader.state_dict(after=loader(data).batch(theirs[-1][1])))
    assert keys(take(reader, 2)) == keys(take(loader(data), 7)[5:])


def names_and_steps(batch):
    return [sample.key for sample in batch], batch[0].step


def test_a_curriculum_is_kept_across_an_interruption(data):
    phases = [Phase([Bucket(5, 8, 8)], 2), Phase([WIDE], 1)]
    whole = take(loader(data, buckets=phases, view="raw"), 5)
    assert [batch[0].video.shape[:3] for batch in whole] == [(5, 8, 8)] * 2 + [(5, 16, 24)] * 3
    begun, state = read(data, 1, 3, buckets=phases)
    assert begun + read(data, 2, 2, state, buckets=phases)[0] == keys(whole)


# -- weights and mixtures ----------------------------------------------------------------------------------------------


def test_data_sets_are_mixed_by_their_shares(tmp_path, pack):
    pack(tmp_path / "a", 4, "a")
    pack(tmp_path / "b", 16, "b")
    reader = loader({tmp_path / "a": 3, tmp_path / "b": 1}, buckets=[Bucket(5, 16, 16)])
    count = Counter(key[0] for key in flat(keys(take(reader, 10))))
    assert 28 <= count["a"] <= 32
    assert count["a"] + count["b"] == 40


def test_weights_are_a_function_of_the_index(data):
    riskless = loader(data, weight=lambda index: index["copy_risk"].to_numpy() < 0.06)
    assert {int(key[-3:]) for key in flat(keys(take(riskless, 6)))} <= set(range(6))
    evened = loader(data, weight=lambda index: balanced_weights(index, "roles", 1.0), buckets=[Bucket(5, 16, 16)])
    count = Counter(int(key[-3:]) for key in flat(keys(take(evened, 60))))
    assert count[3] > 1.3 * count[0]  # with a place and an object


def test_samples_without_a_wanted_reference_are_in_no_batch_and_counted(data):
    reader = loader(data, augmentation=Augmentation(roles=("object",)), view="raw", buckets=[Bucket(5, 16, 16)])
    assert reader.plan.skipped == {"no reference": 7}
    assert {r.kind for batch in take(reader, 3) for s in batch for r in s.references} == {"object"}


# -- the encoded view --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_encoded_samples_are_tensors_by_name(tmp_path, pack, workers):
    stored = {"video": torch.randn(16, 2, 4, 6).bfloat16(), "text": torch.randn(3, 8), "length": torch.tensor(3)}
    pack(tmp_path, change=lambda key, made: {"json": made["json"], "safetensors": save(stored)})
    os.rename(tmp_path / "index.parquet", tmp_path / "encoded.parquet")
    samples = flat(take(loader(tmp_path, view="encoded", num_workers=workers), 2))
    for sample in samples:
        assert {name: t.dtype for name, t in sample.tensors.items()} == {n: t.dtype for n, t in stored.items()}
        assert all(torch.equal(sample.tensors[name], stored[name]) for name in stored)
        assert sample.facts.clip_id == sample.key
        assert sample.reference_names == tuple(g.name for g in sample.facts.references)


def test_encoded_samples_that_are_broken_are_set_aside(tmp_path, pack):
    pack(tmp_path, change=lambda key, made: {"safetensors": b"no" if key == "clip-001" else save({"x": torch.ones(1)})})
    reader = loader(tmp_path, view="encoded", index="index.parquet")
    take(reader, 3)
    assert list(reader.corrupt_samples) == ["clip-001"]
    assert "its .safetensors cannot be read" in reader.corrupt_samples["clip-001"]


# -- what is broken ----------------------------------------------------------------------------------------------------


BROKEN = {
    "clip-001": ("mp4", lambda made: b"", ".mp4 cannot be read"),
    "clip-003": ("mp4", lambda made: made["mp4"][: len(made["mp4"]) // 2], ".mp4"),
    "clip-004": ("json", lambda made: made["json"][:-9], ".json cannot be read"),
    "clip-006": ("ref0.png", lambda made: b"x" * 9, "ref0.png cannot be read"),
    "clip-007": ("ref0.png", lambda made: None, "lacks the member .ref0.png"),
    "clip-009": ("json", lambda made: made["json"].replace(b"triplet/3", b"triplet/9"), "this version reads"),
}


def damage(key, made):
    if key in BROKEN:
        name, change, _ = BROKEN[key]
        made = {k: v for k, v in (made | {name: change(made)}).items() if v is not None}
    return made


@pytest.fixture(scope="module")
def broken(tmp_path_factory, pack):
    folder = tmp_path_factory.mktemp("broken")
    pack(folder, change=damage)
    return folder


def test_corrupt_samples_are_set_aside_by_name_and_replaced_alike_everywhere(broken, caplog):
    options = {"view": "raw", "tail": "fill"}
    one = loader(broken, **options)
    whole = flat(take(one, 4))
    two = [loader(broken, rank=r, world_size=2, num_workers=r, **options) for r in (0, 1)]
    halves = flat(together([take(reader, 4) for reader in two]))
    assert [s.key for s in whole] == [s.key for s in halves]
    assert all(np.array_equal(a.video, b.video) for a, b in zip(whole, halves, strict=True))
    assert not {s.key for s in whole} & set(BROKEN)
    assert set(one.corrupt_samples) == set(BROKEN) == set(two[0].corrupt_samples) | set(two[1].corrupt_samples)
    for key, (_, _, why) in BROKEN.items():
        assert why in one.corrupt_samples[key]
        assert key in caplog.text


def test_a_sample_whose_json_has_no_reference_is_set_aside(tmp_path, pack):
    def bare(key, made):
        return made | {"json": made["json"].replace(b'"human"', b'"nobody"')} if key == "clip-000" else made

    pack(tmp_path, change=bare)
    reader = loader(tmp_path, view="raw", tail="fill", augmentation=Augmentation(roles=("human",)))
    take(reader, 4)
    assert reader.corrupt_samples["clip-000"].endswith(
        "does not have a reference of human, unlike its row of the index"
    )


def test_a_data_set_of_which_nothing_can_be_read_stops(tmp_path, pack):
    pack(tmp_path, change=lambda key, made: made | {"mp4": b""})
    with pytest.raises(ValueError, match=r"16 consecutive samples cannot be read: .*clip"):
        next(iter(loader(tmp_path, view="raw", num_workers=1)))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_index_that_disagrees_with_its_tar_stops_with_the_sentence(tmp_path, pack, workers):
    pack(tmp_path)
    table = pq.read_table(tmp_path / "index.parquet")
    pq.write_table(
        table.set_column(0, "clip_id", table["clip_id"].take(list(range(13, -1, -1)))), tmp_path / "index.parquet"
    )
    with pytest.raises(LookupError, match="index and tar are from different runs"):
        take(loader(tmp_path, num_workers=workers, tail="fill"), 4)


def test_an_error_in_the_callers_own_shape_is_not_taken_for_a_corrupt_sample(data):
    def shape(frames, bucket, rng):
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        take(loader(data, view="raw", shape=shape), 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"world_size": 3}, "a batch of 4 videos of 5 x 16 x 24 cannot be divided evenly among 3 ranks"),
        ({"rank": 2, "world_size": 2}, "rank is 2, but must be from 0"),
        ({"view": "mp4"}, "the views are raw, encoded, bytes"),
        ({"buckets": []}, "buckets is empty"),
        ({"buckets": [Bucket(81, 480, 832)]}, "14 samples do not fill a batch of 4"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(data, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        loader(data, **options)


def test_a_state_of_other_data_is_refused(data, tmp_path, pack):
    pack(tmp_path, 13)
    with pytest.raises(ValueError, match=r"belongs to other data .* resume with the original data"):
        loader(tmp_path).load_state_dict(loader(data).state_dict())


@pytest.mark.parametrize(
    "options", [{"seed": 4}, {"global_batch_size": 2}, {"buckets": [WIDE]}, {"weight": lambda i: np.ones(14)}]
)
def test_a_state_of_other_settings_is_refused(data, options):
    with pytest.raises(ValueError, match="another seed, global_batch_size"):
        loader(data, **options).load_state_dict(loader(data).state_dict())


def test_two_readers_of_one_loader_do_not_go_unnoticed(data):
    reader = loader(data)
    one = iter(reader)
    next(one)
    next(iter(reader))
    with pytest.raises(RuntimeError, match="start a new iteration"):
        next(one)


# -- elsewhere ---------------------------------------------------------------------------------------------------------


def test_shards_behind_a_url_give_the_same(data):
    there = Folder(f"memory://{data}/far")
    for name in os.listdir(data):
        there.put((data / name).read_bytes(), name)
    far = take(loader(there.root), 4)
    assert keys(far) == keys(take(loader(data), 4))
    assert {n: bytes(m) for n, m in far[0][0].members.items()} == {
        n: bytes(m) for n, m in loader(data).batch(0)[0].members.items()
    }


def test_index_plan_and_view_need_no_torch():
    code = "import sys; from a2data.dataset import batch_plan, decode, reader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_worker_takes_along_no_column_that_only_weights_need(data):
    light = loader(data, weight=lambda i: np.ones(len(i))).reader.tars.index
    assert isinstance(light, tars.Index)
    assert light.table is None
