"""The real-film benchmark: people of a labelled shot, and the lines of its report."""

from collections import Counter
from types import SimpleNamespace

from a2data.records import Reject
from benchmarks.real_film import Ratio, Row, heads, lines, refusals
from pipelines.films.truth import Film, Shot


def test_the_outlines_of_a_shot_are_given_to_its_people_from_the_left_to_the_right():
    film = Film("a.mp4", 25.0, 40, 100, 80, [], [Shot(0, 40)])
    right, left = [[[60, 10], [90, 10], [90, 70], [60, 70]]], [[[10, 10], [40, 10], [40, 70], [10, 70]]]
    labelled = heads(film, ["F", "M"], {"5": [right, left]})
    woman, man = labelled.shots[0].entities
    assert (woman.id, woman.sights[5].box[0], man.id, man.sights[5].box[0]) == ("F", 10, "M", 60)
    assert labelled.sight_of(man, 39) is man.sights[5]


def test_each_half_is_summed_and_the_reasons_of_the_lost_come_last():
    rows = {
        "asl_learn.mkv": Row(Ratio(1, 2), Ratio(3, 3), Ratio(2, 3)),
        "asl_bird.mkv": Row(Ratio(2, 2), Ratio(4, 4), Ratio(1, 1)),
        "asl_milk.mkv": Row(Ratio(0, 1), Ratio(0, 0), Ratio(0, 0)),
    }
    told = list(lines("builtin", rows, Counter({("retrieve", "only copies"): 2}), held_out=False))
    held = "builtin, held out: clips with a right person 1/3 = 0.33, references right 3/3 = 1.00, clean 2/3 = 0.67"
    assert (
        told[3]
        == "builtin, tuning: clips with a right person 2/2 = 1.00, references right 4/4 = 1.00, clean 1/1 = 1.00"
    )
    assert told[4:] == [held, "builtin, clips without a person: 2 retrieve: only copies"]


def test_only_refusals_of_people_and_of_whole_clips_are_reasons():
    keys = {"retrieve": ("a/human/0", "a/upper/0", "b/face/1"), "pack": ("b",)}
    footers = {stage: SimpleNamespace(rejected=[Reject(key, "no") for key in found]) for stage, found in keys.items()}
    store = SimpleNamespace(
        shards=lambda stage: [0] if stage in footers else [], footer=lambda stage, _: footers[stage]
    )
    assert refusals(store) == {"a": [("retrieve", "no")], "b": [("retrieve", "no"), ("pack", "no")]}
