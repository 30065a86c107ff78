import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from pipelines.sources.lists import entries, resolve_location


def rows(text, suffix=".csv", encoding="utf-8"):
    data = text if isinstance(text, bytes) else text.encode(encoding)
    return [(e.location, e.license, e.source, e.label) for e in entries(data, f"list{suffix}")]


def refused(text, suffix=".csv"):
    with pytest.raises(ValueError, match=f"list{suffix}") as raised:
        rows(text, suffix)
    return str(raised.value)


WANTED = [("é.mp4", "CC0", "", "cats")]
TEXT = "path,license,label\né.mp4,CC0,cats\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_marked_encodings_are_read(encoding, suffix):
    line = json.dumps({"path": "é.mp4", "license": "CC0", "label": "cats"}, ensure_ascii=False)
    assert rows(TEXT if suffix == ".csv" else line, suffix, encoding) == WANTED


def test_both_byte_orders_of_utf_16_are_read():
    assert rows("\ufeff" + TEXT, encoding="utf-16-be") == rows("\ufeff" + TEXT, encoding="utf-16-le") == WANTED


def test_latin_1_is_not_guessed_but_named_with_its_line_and_read_when_it_is_said():
    assert "line 2 is not UTF-8" in refused(TEXT.encode("latin-1"))
    assert "--list-encoding" in refused(TEXT.encode("latin-1"))
    assert entries(TEXT.encode("latin-1"), "list.csv", "latin-1")[0].location == "é.mp4"
    with pytest.raises(ValueError, match="unknown encoding"):
        entries(b"path\n", "list.csv", "klingon")


def test_utf_16_without_a_mark_and_other_nuls_are_named():
    assert "line 1 contains a NUL: if it is UTF-16" in refused(TEXT.replace("é", "e").encode("utf-16-le"))
    assert "line 3 contains a NUL" in refused("path\na.mp4\nb\0.mp4\n")
    assert "row 1: has a NUL in its 'path'" in refused(r'{"path": "a\u0000.mp4"}', ".jsonl")


@pytest.mark.parametrize(
    "header", [" path , license,label ", "Path,LICENSE,Label", '"path", "licence", "label"', "url,Licence,label"]
)
def test_spaces_case_and_spelling_of_the_header_do_not_matter(header):
    assert rows(f"{header}\né.mp4, CC0 ,cats\n") == WANTED


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x0b", "\x0c", "\x85", "\x1c", "\x1e"])
def test_only_line_feeds_end_a_line(char):
    label = f"two{char}words"
    assert rows(f"path,label\na.mp4,{label}\n") == [("a.mp4", "", "", label)]
    assert rows(json.dumps({"path": "a.mp4", "label": label}, ensure_ascii=False), ".jsonl") == [
        ("a.mp4", "", "", label)
    ]


def test_quotes_may_span_lines_and_lines_may_end_in_any_way():
    assert rows('path,label\na.mp4,"one\ntwo, ""three"""\nb.mp4,x\n')[0][3] == 'one\ntwo, "three"'
    assert len(rows("path,label\r\na.mp4,x\r\n\r\nb.mp4,y\r\n")) == len(rows("path,label\ra.mp4,x\rb.mp4,y")) == 2


def test_a_field_of_a_megabyte_is_read_and_the_limit_of_other_readers_stays():
    limit = csv.field_size_limit()
    assert len(rows(f"path,label\na.mp4,{'x' * 1_000_000}\n")[0][3]) == 1_000_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\na.mp4,cats, dogs\n", "row 1: has 3 fields, the header 2"),
        ('path,label\na.mp4,x\nb.mp4,"open\nc.mp4,y\n', "row 2: is not csv, at line 4"),
        ("path,license,Licence\na.mp4,CC0,CC-BY\n", "row 1: states 'license' twice: 'CC0' and 'CC-BY'"),
        ("path,url\na.mp4,b.mp4\n", "row 1: has a \"path\" and a different"),
        ("name\na.mp4\n", 'row 1: needs a "path" or a "url", has name'),
    ],
)  # fmt: skip
def test_a_row_of_csv_that_does_not_parse_is_named(text, said):
    assert said in refused(text)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1]", "is a JSON list, not an object"),
        ('"https://h/x?sig=SECRET"', "is a JSON str, not an object"),
        ("null", "is a JSON NoneType, not an object"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"path": "a", "license": "A", "license": "B"}', "states 'license' twice"),
        ('{"path": ["a"]}', "has a 'path' that is not text: list"),
        ('{"path": 5}', "has a 'path' that is not text: int"),
        ('{"path": "a", "label": {"b": 1}}', "has a 'label' that is not text: dict"),
        (r'{"path": "a\ud800.mp4"}', "is not valid Unicode"),
        ('{"path": "a", "label": 1' + "0" * 5000 + "}", "is not JSON"),
    ],
)
def test_a_line_of_jsonl_that_is_not_a_row_is_named(line, said):
    message = refused('{"path": "good.mp4"}\n\n' + line, ".jsonl")
    assert "row 3: " in message
    assert said in message
    assert "SECRET" not in message


def test_several_rows_that_do_not_parse_are_named_at_once():
    message = refused("\n".join(["{}"] * 12), ".jsonl")
    assert "row 1: needs" in message
    assert "row 10: needs" in message
    assert message.endswith("and 2 more rows")


def test_numbers_are_labels_too_and_nothing_is_nothing():
    line = '{"path": "a.mp4", "label": 0, "license": null, "source": NaN}'
    assert rows(line, ".jsonl") == [("a.mp4", "", "", "0")]


def parquet(**columns):
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def test_parquet_of_other_types_is_read_or_named():
    table = parquet(
        Path=pa.array([b"a.mp4", b"b.mp4"]), label=pa.array(["x", "y"]).dictionary_encode(), other=[[1], [2]]
    )
    assert rows(table, ".parquet") == [("a.mp4", "", "", "x"), ("b.mp4", "", "", "y")]
    assert "row 1: has a 'path' that is not UTF-8" in refused(parquet(path=[b"\xff.mp4"]), ".parquet")
    assert "row 1: has a 'label' that is not text: list" in refused(parquet(path=["a"], label=[["x"]]), ".parquet")
    assert "has name" in refused(parquet(name=["a"]), ".parquet")
    assert "is not a readable parquet file" in refused(b"PAR1 not", ".parquet")
    assert "is not a readable parquet file" in refused(parquet(path=["a.mp4"])[:-20], ".parquet")


def test_relative_paths_are_seen_from_the_list():
    assert resolve_location("../c.mp4", "/lists/x/a.csv") == "/lists/x/../c.mp4"
    assert resolve_location("https://h/x", "/lists/a.csv") == "https://h/x"


TEXTS = some.text(some.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some.lists(some.tuples(TEXTS, TEXTS), min_size=1))
def test_any_text_comes_back_from_csv_and_jsonl(pairs):
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerows([("path", "label"), *pairs])
    wanted = [(path, "", "", label.strip(" \t")) for path, label in pairs]
    lines = "\n".join(json.dumps({"path": path, "label": label}, ensure_ascii=False) for path, label in pairs)
    assert rows(out.getvalue()) == wanted
    assert rows(lines, ".jsonl") == wanted


@settings(max_examples=60, deadline=None)
@given(some.binary(), some.sampled_from([".csv", ".jsonl", ".parquet"]))
def test_any_bytes_are_rows_or_a_sentence_that_names_the_list(data, suffix):
    said = f"list{suffix}"
    try:
        entries(data, said)
    except ValueError as error:
        said = str(error)
    assert f"list{suffix}" in said
