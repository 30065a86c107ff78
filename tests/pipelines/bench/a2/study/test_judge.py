"""A judge behind a real server on loopback."""

import json

import chat_server
import numpy as np
import pytest
import toy_bench
from PIL import Image

from pipelines.bench.a2.cases import Case, Element, write
from pipelines.bench.a2.study import page as study
from pipelines.cli.main import main

pytest.importorskip("httpx")

SHADES = {"nocturne": 30, "matinee": 220}
FINE = dict.fromkeys(study.CRITERIA, 3)


@pytest.fixture
def world(tmp_path):
    """Two cases; a dark and a light system."""
    Image.fromarray(np.full((40, 60, 3), (200, 0, 0), np.uint8)).save(tmp_path / "cup.png")
    cases = [Case(f"case-{n}", f"Cup {n}.", (Element("object", tmp_path / "cup.png", "cup"),)) for n in range(2)]
    write(cases, tmp_path / "cases")
    for name, shade in SHADES.items():
        for case in cases:
            toy_bench.write(tmp_path / name / f"{case.id}.mp4", np.full((20, 32, 48, 3), shade, np.uint8))
    systems = {name: tmp_path / name for name in SHADES}
    key = study.make(cases, systems, tmp_path / "study")
    return tmp_path, key, [f"--system={name}={folder}" for name, folder in systems.items()]


def judge(world, chat):
    home, _, systems = world
    files = ["--cases", str(home / "cases"), "--key", str(home / "study/key.json"), "--out", str(home / "judge.json")]
    return main(["bench", "study", "judge", "--model", chat.card(attempts=1), *files, *systems])


def test_a_judge_sees_what_a_rater_sees_and_fills_in_the_same_form(world, capsys):
    def answer(body, number):
        light = chat_server.pictures(body)[-1].mean() > 128
        return chat_server.reply({**FINE, "aesthetic_quality": 5 if light else 2})

    home, _, _ = world
    with chat_server.serving(answer) as chat:
        assert judge(world, chat) == 0
    body = chat.bodies[0]
    shown = chat_server.pictures(body)
    assert len(shown) == 1 + 16
    assert shown[0].mean((0, 1)) == pytest.approx((200, 0, 0), abs=6)
    said = chat_server.words(body)
    assert "Cup" in said
    assert all(c.asks in said for c in study.CRITERIA.values())
    assert not [name for name in SHADES if name in said]
    aggregate = ["bench", "study", "aggregate", str(home / "judge.json"), "--key", str(home / "study/key.json")]
    assert main([*aggregate, "--out", str(home / "all.json")]) == 0
    made = json.loads((home / "all.json").read_text())
    assert "person" not in made
    assert made["model"]["raters"] == ["tiny/model"]
    means = {name: made["model"]["means"][name]["aesthetic_quality"]["value"] for name in SHADES}
    assert means == {"nocturne": 2, "matinee": 5}


def test_an_answer_that_is_none_is_asked_for_once_more_and_then_named(world, capsys):
    def answer(body, number):
        again = "That does not fit" in chat_server.words(body)
        if "Cup 0" in chat_server.words(body):
            return chat_server.reply(FINE if again else "Lovely!")
        return chat_server.reply({**FINE, "face_consistency": 2})  # which the form does not have

    with chat_server.serving(answer) as chat:
        assert judge(world, chat) == 1
    assert len(chat.bodies) == 2 * 4
    told = capsys.readouterr()
    assert (
        "case-1/A: the model gave no answers that the form has: face_consistency is 2, not one of 1, 3, 5" in told.err
    )
    made = json.loads((world[0] / "judge.json").read_text())
    assert {row["case"] for row in made["ratings"]} == {"case-0"}
    assert made["rater"] == {"name": "tiny/model", "kind": "model"}


def test_a_server_that_refuses_is_named_and_costs_only_its_video(world, capsys):
    answers = lambda body, number: chat_server.refuse(400) if number == 0 else chat_server.reply(FINE)  # noqa: E731
    with chat_server.serving(answers) as chat:
        assert judge(world, chat) == 1
    assert "refused the request" in capsys.readouterr().err
    assert len(json.loads((world[0] / "judge.json").read_text())["ratings"]) == 3 * 10
