import pickle

import numpy as np
import torch

from a2data.dataset.batch_plan import Bucket
from a2data.dataset.decode import Reference, Sample
from a2data.dataset.shared_memory import to_shared_memory

RNG = np.random.default_rng(0)
PICTURES = (RNG.integers(0, 255, (5, 7, 3), np.uint8), RNG.integers(0, 255, (1, 1, 3), np.uint8))
SAMPLE = Sample(
    *("key", 1, 2, 3, 4, Bucket(1, 2, 3)),
    references=tuple(Reference("human", picture, "ref0", "") for picture in PICTURES),
    video=RNG.integers(0, 255, (3, 5, 7, 3), np.uint8)[:, ::2],
    tensors={"a": torch.randn(3, 5).bfloat16().T, "b": torch.tensor(7), "c": torch.zeros(0, 4)},
    members={"json": memoryview(b"{}{}{"), "empty": memoryview(b"")},
)


def test_a_sample_comes_out_as_it_went_in():
    again = pickle.loads(pickle.dumps(to_shared_memory(SAMPLE))).sample()
    assert np.array_equal(again.video, SAMPLE.video)
    assert all(np.array_equal(a.picture, b) for a, b in zip(again.references, PICTURES, strict=True))
    assert {n: (t.dtype, t.shape) for n, t in again.tensors.items()} == {
        n: (t.dtype, t.shape) for n, t in SAMPLE.tensors.items()
    }
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in SAMPLE.tensors.items())
    assert {name: bytes(data) for name, data in again.members.items()} == {"json": b"{}{}{", "empty": b""}
    assert (again.key, again.bucket, again.facts) == (SAMPLE.key, SAMPLE.bucket, None)


def test_all_arrays_lie_in_one_piece():
    made = to_shared_memory(SAMPLE)
    again = made.sample()
    inside = range(made.data.data_ptr(), made.data.data_ptr() + len(made.data))
    arrays = [again.video, *(r.picture for r in again.references)]
    assert all(array.ctypes.data in inside for array in arrays)
    assert all(t.data_ptr() in inside for t in again.tensors.values() if t.numel())


def test_a_sample_without_arrays_can_be_handed_over_too():
    bare = Sample("key", 0, 0, 0, 0, Bucket(1, 1, 1))
    assert to_shared_memory(bare).sample() == bare
