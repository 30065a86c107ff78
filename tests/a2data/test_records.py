"""Records and the Arrow schemas they imply."""

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pytest

from a2data import records
from a2data.records import Caption, ClipVideo, Element, ExpertOutput, Rule, Score, Subject
from a2data.store.schema import from_table, schema, to_table

TABLES = [v for v in vars(records).values() if isinstance(v, type) and hasattr(v, "__dataclass_fields__")]


@pytest.mark.parametrize("record", TABLES, ids=lambda r: r.__name__)
def test_every_record_has_a_schema_without_nulls(record):
    assert schema(record).names == [f.name for f in fields(record)]
    assert not any(field.nullable for field in schema(record))


def test_nested_records_come_back_as_they_went_in():
    subject = Subject("Human", "Man", "tall", "waves", "", "left", True, "a man", 0, 5)
    caption = Caption("c", "a man waves", [subject], "", "", "", "", "", 0, 0, "", [ExpertOutput("e", "f", "v", 0.5)])

    assert from_table(Caption, to_table(Caption, [caption])) == [caption]


def test_boxes_come_back_as_tuples_and_vectors_as_float32():
    element = Element(
        *(
            "c",
            "c/human/0",
            "human",
            "person",
            "",
            3,
            (0.5, 1.0, 2.0, 3.0),
            0.9,
            b"\x01",
            b"png",
            "00",
            [0.1, 0.2],
            "m",
        ),
        *(0.5, [1, 2], [(0.0, 0.0, 1.0, 1.0), (1.0, 1.0, 2.0, 2.0)], ["colour=red"]),
    )
    (back,) = from_table(Element, to_table(Element, [element]))

    assert back.box == element.box
    assert back.seen_boxes == element.seen_boxes
    assert back.embedding == np.float32([0.1, 0.2]).tolist()


def test_numpy_values_are_taken_for_what_they_are():
    table = to_table(Score, [Score("c", "luma", np.float32(0.5))])  # type: ignore[arg-type]

    assert table.column("value").to_pylist() == [0.5]


def test_a_value_of_the_wrong_type_is_named_with_its_column():
    with pytest.raises(TypeError, match=r"Score.value does not hold a double"):
        to_table(Score, [Score("c", "luma", "bright")])  # type: ignore[arg-type]


def test_a_type_without_an_arrow_type_is_refused():
    @dataclass(frozen=True)
    class Odd:
        what: complex

    with pytest.raises(TypeError, match="no Arrow type for"):
        schema(Odd)


def test_a_record_reads_only_its_own_columns():
    assert "video" not in schema(records.Clip).names
    assert set(schema(records.Clip).names) < set(schema(ClipVideo).names)


def test_a_rule_says_what_it_asked_and_what_it_found():
    assert str(Rule("motion", 0.25, 0.5, float("inf"))) == "motion = 0.25, allowed 0.5 to inf: FAIL"
    assert Rule("motion", 0.5, 0.5, 1.0).passed


def test_an_empty_table_has_the_same_schema_as_a_full_one():
    assert to_table(Score, []).schema == to_table(Score, [Score("c", "m", 1.0)]).schema == schema(Score)
    assert isinstance(schema(Score).field("value").type, pa.DataType)
