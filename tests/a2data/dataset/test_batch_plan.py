import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2data.dataset.batch_plan import Bucket, Phase, assign, permutation, plan, rng, standard_buckets

SMALL, TALL, LONG = Bucket(17, 64, 112), Bucket(17, 112, 64), Bucket(33, 64, 112)


def clips(*shapes):
    """Frames, height, width of clips, as the columns of an index."""
    return tuple(np.array(column, np.int64) for column in zip(*shapes, strict=True))


MANY = clips(*[(17, 64, 112)] * 13, *[(17, 112, 64)] * 9, *[(40, 72, 128)] * 6)


def planned(shape=MANY, buckets=(SMALL, TALL, LONG), global_batch_size=4, seed=0, phases=None, **options):
    return plan(shape, phases or [Phase(buckets, 1)], seed=seed, global_batch_size=global_batch_size, **options)


def first(made, count, step=0):
    return list(itertools.islice(made.batches(step), count))


def used(made, epoch):
    """The rows of an epoch, one by one."""
    return [int(row) for b in first(made, made.phase_plans[0].length, made.step(epoch, 0)) for row in b.rows]


def same(a, b):
    return all(np.array_equal(x.rows, y.rows) and x[:5] == y[:5] for x, y in zip(a, b, strict=True))


# -- chance ------------------------------------------------------------------------------------------------------------


def test_a_draw_depends_on_each_part_of_its_key_and_on_nothing_else():
    keys = [(0, 0, 0, "noise"), (1, 0, 0, "noise"), (0, 1, 0, "noise"), (0, 0, 1, "noise"), (0, 0, 0, "drop")]
    keys += [(0, 0, "0", "noise")]
    drawn = [rng(*key).random() for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn == [rng(*key).random() for key in keys]
    assert rng(0, np.int64(1), np.int64(2), "noise").random() == rng(0, 1, 2, "noise").random()


def test_drops_come_as_often_as_asked_and_hit_other_samples_in_another_epoch():
    dropped = [{n for n in range(2000) if rng(7, epoch, n, "caption drop").random() < 0.3} for epoch in (0, 1)]
    assert all(540 < len(d) < 660 for d in dropped)  # three standard deviations
    assert 130 < len(dropped[0] & dropped[1]) < 230  # 180 of 2000 where the epochs do not know each other


@given(st.integers(0, 300), st.integers(0, 2**40))
def test_a_permutation_is_one(count, seed):
    assert sorted(permutation(count, seed, "x")) == list(range(count))


def test_a_permutation_stays_the_same_from_release_to_release():
    assert permutation(8, 0, 1, "order").tolist() == [5, 7, 3, 6, 0, 1, 2, 4]


# -- buckets -----------------------------------------------------------------------------------------------------------


def test_the_largest_standard_bucket_is_a2s_own():
    assert max(standard_buckets(), key=lambda b: b.tokens).tokens == Bucket(81, 480, 832).tokens == 32_760
    assert Bucket(81, 480, 832) in standard_buckets()


@pytest.mark.parametrize(
    ("clip", "bucket"),
    [
        ((81, 720, 1280), 0),  # the same aspect, nearly
        ((81, 1280, 720), 1),  # upright
        ((80, 720, 1280), 2),  # a frame short of 81
        ((81, 480, 831), 3),  # a column short of 832
        ((81, 256, 300), -1),  # would have to be enlarged
        ((40, 720, 1280), -1),  # would have to be repeated
    ],
)
def test_a_clip_goes_to_the_bucket_that_shows_most_of_it(clip, bucket):
    buckets = [Bucket(81, 480, 832), Bucket(81, 832, 480), Bucket(61, 480, 832), Bucket(81, 256, 448)]
    assert assign(*clips(clip), buckets).tolist() == [bucket]


def test_every_batch_is_of_one_bucket_and_buckets_take_turns():
    made = planned(clips(*[(17, 64, 112)] * 80, *[(17, 112, 64)] * 80), (SMALL, TALL))
    batches = first(made, 40)
    assert all({bool(row >= 80) for row in b.rows} == {b.bucket == TALL} for b in batches)
    turns = [b.bucket for b in batches]
    assert Counter(turns) == {SMALL: 20, TALL: 20}
    assert sum(a != b for a, b in itertools.pairwise(turns)) > 10


def test_batches_of_long_videos_are_smaller_under_a_budget_of_tokens():
    made = planned(max_tokens=4 * SMALL.tokens)
    assert {b.bucket: len(b.rows) for b in first(made, 8)} == {SMALL: 4, TALL: 4, LONG: 2}


# -- the order ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 3), st.integers(0, 2**32), st.sampled_from(["drop", "fill"]))
def test_an_epoch_has_every_sample_once_but_for_the_tail(global_batch_size, epoch, seed, tail):
    made = planned(global_batch_size=global_batch_size, seed=seed, tail=tail)
    count = Counter(used(made, epoch))
    if tail == "drop":
        assert set(count.values()) == {1}
        assert len(count) == sum(n - n % global_batch_size for n in (13, 9, 6))
    else:
        assert set(count) == set(range(28))
        assert sum(count.values()) == sum(-(-n // global_batch_size) * global_batch_size for n in (13, 9, 6))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32), st.booleans())
def test_starting_at_a_step_equals_resuming_there(step, seed, weighted):
    weights = np.linspace(0, 2, 28) if weighted else None
    made = planned(seed=seed, weights=weights, phases=[Phase([SMALL, TALL], 9), Phase([LONG, TALL], 1)])
    assert same(first(made, 60)[step:], first(made, 60 - step, step))
    assert made.step(*made.position(step)) == step


def test_epochs_and_seeds_differ():
    made = planned()
    assert used(made, 0) != used(made, 1)
    assert used(made, 0) != used(planned(seed=1), 0)


def test_indices_count_the_samples_of_an_epoch():
    made = planned(max_tokens=4 * SMALL.tokens)
    firsts = [(b.first, len(b.rows)) for b in first(made, made.phase_plans[0].length)]
    assert firsts[0][0] == 0
    assert all(a + n == b for (a, n), (b, _) in itertools.pairwise(firsts))


def test_a_curriculum_changes_its_buckets_at_its_step_and_no_epoch_comes_twice():
    made = planned(phases=[Phase([SMALL], 5), Phase([LONG], 1)])
    batches = first(made, 9)
    assert [b.bucket for b in batches] == [SMALL] * 5 + [LONG] * 4
    assert [(b.epoch, b.number) for b in batches[:5]] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    assert batches[5].epoch == 2


# -- weights -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 3), min_size=13, max_size=13).filter(lambda w: sum(w) > 4), st.integers(0, 1000))
def test_a_sample_of_weight_w_occurs_one_of_the_whole_numbers_around_w_times(weights, epoch):
    made = planned(clips(*[(17, 64, 112)] * 13), [SMALL], global_batch_size=1, weights=np.array(weights))
    count = Counter(used(made, epoch))
    whole = int(sum(weights) + 1e-6)
    share = np.array(weights) * whole / sum(weights)
    assert all(np.floor(w - 1e-9) <= count[row] <= np.ceil(w + 1e-9) for row, w in enumerate(share))
    assert sum(count.values()) == whole


def test_on_average_it_occurs_w_times():
    weights = np.array([0.25, 0.5, 1.0, 2.25])
    made = planned(clips(*[(17, 64, 112)] * 4), [SMALL], global_batch_size=1, weights=weights)
    count = Counter(row for epoch in range(400) for row in used(made, epoch))
    assert np.allclose([count[row] / 400 for row in range(4)], weights, atol=0.08)


def test_weights_of_one_change_no_count():
    assert sorted(used(planned(weights=np.ones(28), global_batch_size=1), 0)) == list(range(28))


# -- what replaces a sample --------------------------------------------------------------------------------------------


def test_what_replaces_a_sample_is_of_its_bucket_and_always_the_same():
    made = planned()
    batch = next(b for b in first(made, 9) if b.bucket == TALL)
    instead = [made.replacement(batch, batch.first, attempt) for attempt in range(20)]
    assert set(instead) <= set(range(13, 22))
    assert len(set(instead)) > 5
    assert instead == [planned().replacement(batch, batch.first, attempt) for attempt in range(20)]


# -- what tells two plans apart ----------------------------------------------------------------------------------------


def test_the_digest_is_that_of_data_and_settings():
    other = [
        {"seed": 1},
        {"global_batch_size": 2},
        {"buckets": (SMALL, TALL)},
        {"tail": "fill"},
        {"weights": np.ones(28)},
        {"usable": np.arange(28) > 0},
        {"data": "x"},
        {"max_tokens": 9999},
    ]
    digests = [planned(**options).digest for options in [{}, *other]]
    assert len(set(digests)) == len(digests)
    assert planned().digest == digests[0]


def test_a_plan_says_how_many_samples_it_leaves_out_and_why():
    shape = clips(*[(17, 64, 112)] * 8, (9, 9, 9))
    made = planned(shape, [SMALL], weights=np.arange(9) * 1.0, usable=np.arange(9) != 3)
    assert made.skipped == {"no reference": 1, "weight 0": 1, "fits no bucket, or one that fills no batch": 1}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"buckets": [Bucket(81, 480, 832)]}, "28 samples do not fill a batch of 4: .* has 0"),
        ({"global_batch_size": 14}, "the fullest of the buckets .* has 13"),
        ({"buckets": []}, "do not fill a batch"),
        ({"global_batch_size": 0}, "at least 1"),
        ({"buckets": [SMALL, SMALL]}, "must be distinct"),
        ({"tail": "pad"}, "'drop' or 'fill'"),
        ({"max_tokens": 20}, r"max_tokens \(20\): raise it"),
        ({"weights": np.full(28, np.nan)}, "must be finite"),
        ({"weights": np.ones(3)}, r"shape \(28,\)"),
        ({"phases": [Phase([SMALL], 0), Phase([TALL], 1)]}, "at least one step"),
    ],
)
def test_settings_that_give_no_batches_are_refused_with_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        planned(**options)


def test_a_plan_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        planned().seed = 3
