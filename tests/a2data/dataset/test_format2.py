"""Shards that were packed before format 3 are read by everything that reads shards."""

import json
import math

import format2
import numpy as np
import pytest

from a2data.dataset.loader import Bucket, Loader
from a2data.dataset.triplet import from_sample, to_facts, to_json
from a2data.media import coco_rle, video
from a2data.media.images import from_png
from a2data.records import Rule
from a2data.store.folder import Folder
from pipelines.run import verify


@pytest.fixture(scope="module")
def film() -> bytes:
    frames = np.full((14, 32, 48, 3), format2.GREY, np.uint8)
    frames[:, format2.MASK] = format2.RED
    return video.encode(frames, 15.0, crf=4)


def test_a_sample_of_format_2_becomes_a_triplet(film):
    members = format2.sample(film)
    triplet = from_sample(members)
    (given,) = triplet.facts.references
    assert triplet.pictures == {"ref0": members["ref0.png"]}
    assert triplet.cut_outs == {"ref0": members["ref0.rgba.png"]}
    assert given.rules == [Rule("margin", math.inf, 0.1, math.inf), Rule("overlap_s", -math.inf, -math.inf, 0.0)]
    for mask in (given.origin.mask, given.target.mask, triplet.facts.unpaired[0].target.mask):
        assert np.array_equal(coco_rle.decode(mask), format2.MASK)


def test_its_facts_are_the_same_when_written_as_format_3(film):
    facts = to_facts(format2.sample(film)["json"])
    assert to_facts(to_json(facts)) == facts


def test_the_loader_and_verify_read_its_shards(film, tmp_path):
    members = format2.make(tmp_path, film)
    (sample,) = next(iter(Loader(tmp_path, seed=0, global_batch_size=1, buckets=[Bucket(5, 32, 48)], view="raw")))
    assert np.array_equal(sample.references[0].picture, from_png(members["ref0.png"]))
    assert verify.verify_shards(Folder(tmp_path)) == (["00000-000.tar"], [])
    assert verify.decode_samples(Folder(tmp_path), 0) == (1, [])


@pytest.mark.parametrize(
    "change",
    [
        lambda given: given["origin"].update(mask="not base64"),
        lambda given: given["origin"].update(mask="/////////w=="),  # a run of more than 64 bits
        lambda given: given["origin"].update(mask="gICAgBCAgICAEICAgIAQ"),  # 2^32 x 2^32 pixels
        lambda given: given["target"].update(mask={"size": [1, 1], "counts": "1"}),
        lambda given: given["rules"][0].update(low="nothing"),
        lambda given: given["rules"][0].update(low=None),
    ],
)
def test_what_format_2_does_not_have_is_refused(film, change):
    data = json.loads(format2.sample(film)["json"])
    change(data["references"][0])
    with pytest.raises((ValueError, TypeError)):
        to_facts(json.dumps(data).encode())
