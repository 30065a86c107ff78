import json

from a2data.dataset import card, croissant
from a2data.store.folder import Folder

MANIFEST = {"samples": 2, "frames": 9, "format": "f", "licenses": {"CC0-1.0": 2}, "shards": [{}]}


def header(text: str) -> dict:
    """The YAML header; every value is JSON."""
    lines = [line for line in text.split("---")[1].splitlines() if line and not line.startswith("#")]
    return {name: json.loads(value) for name, _, value in (line.partition(": ") for line in lines)}


def test_the_header_names_the_files_of_each_split():
    about = header(card.readme(MANIFEST | {"splits": {"eval": {}, "train": {}}}, ["json"]))
    files = [{"split": "eval", "path": "eval-*.tar"}, {"split": "train", "path": "train-*.tar"}]
    assert about["configs"][0]["data_files"] == files
    assert header(card.readme(MANIFEST, []))["configs"][0]["data_files"] == [{"split": "train", "path": "[0-9]*.tar"}]


def test_a_licence_that_the_hub_does_not_know_is_other():
    assert header(card.readme(MANIFEST, []))["license"] == "cc0-1.0"
    for licenses in ({"CC0": 1, "MIT": 1}, {"": 2}, {"CC BY 4.0 AND CC0": 2}):
        text = card.readme(MANIFEST | {"licenses": licenses}, [])
        assert header(text)["license"] == "other"
        assert all(f"| {name or 'none stated'} |" in text for name in licenses)


def test_every_member_has_a_type():
    assert card.feature("mp4") == {"dtype": "video"}
    assert card.feature("ref0.png") == {"dtype": "image"}
    assert card.feature("cutouts.zip") == {"dtype": "binary"}
    names = {field["name"]: field for field in card.feature("json")["struct"]}
    assert names["source_frames"] == {"name": "source_frames", "list": "int64"}
    assert "struct" in names["caption"]


def test_a_readme_of_the_user_stays(tmp_path):
    out = Folder(tmp_path)
    card.write(out, MANIFEST, [])
    card.write(out, MANIFEST | {"samples": 3}, [])
    assert "3 videos" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("mine")
    card.write(out, MANIFEST, [])
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_description_of_another_data_set_stays(tmp_path):
    out, manifest = Folder(tmp_path), MANIFEST | {"index": {"bytes": 1, "sha256": "0"}, "shards": []}
    croissant.write(out, manifest)
    croissant.write(out, manifest | {"samples": 3})
    assert "3 prompt-reference-video" in (tmp_path / "croissant.json").read_text()
    (tmp_path / "croissant.json").write_text("{}")
    croissant.write(out, manifest)
    assert (tmp_path / "croissant.json").read_text() == "{}"
