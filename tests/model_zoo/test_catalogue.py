"""Requirements for every card."""

import ast
import tomllib
from pathlib import Path

import pytest

from model_zoo import weights
from model_zoo.cards import card
from model_zoo.catalogue import CARDS
from model_zoo.roles import Card
from pipelines.cli.fetch import PYPI
from pipelines.cli.models import USES

ROOT = Path(__file__).parents[2]
every_card = pytest.mark.parametrize("name", sorted(CARDS))


@every_card
def test_a_builder_is_a_public_function_of_card_and_device(name):
    module, _, function = CARDS[name].builder.partition(":")
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]

    assert [argument.arg for argument in found.args.args][:2] == ["card", "device"]
    assert ast.get_docstring(found)


@every_card
def test_a_card_says_what_may_be_done_with_it_and_what_it_needs(name):
    card = CARDS[name]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert card.use in USES
    assert card.code_license
    assert card.weights_license or not card.weights
    assert not card.extra or card.extra in extras
    assert 0 <= card.gpus <= 1
    assert not card.sha256 or (len(card.sha256) == 64 and card.weights)


@every_card
def test_who_refuses_a_licence_is_told_of_a_permissive_card_that_does_the_same(name):
    card, others = CARDS[name], [c for n, c in CARDS.items() if n != name and c.use == "permissive"]
    allowed = {c.role for c in others}

    if card.fallback:
        assert CARDS[card.fallback].use == "permissive"
        assert CARDS[card.fallback].role == card.role or card.role not in allowed
    elif card.use not in ("permissive", "gated"):
        assert card.role not in allowed, (
            f"take one of {[n for n, c in CARDS.items() if c in others and c.role == card.role]}"
        )


@every_card
def test_weights_come_from_one_of_the_known_places(name):
    source = CARDS[name].weights
    kind, _, rest = source.partition(":")

    if kind == "hf":
        assert rest.count("/") >= 1
        assert all(rest.split("/"))
        assert CARDS[name].revision == "main" or weights.pinned(CARDS[name].revision)
    elif kind == "url":
        assert rest.startswith("https://")
        assert not rest.endswith("/")
    elif kind == "pypi":
        assert PYPI.fullmatch(source)
        assert CARDS[name].sha256, "an index may rebuild a package: the hash says which file is meant"
    else:
        assert "/" not in source


def test_no_two_cards_keep_different_weights_in_one_place(monkeypatch):
    monkeypatch.setenv("A2DATA_WEIGHTS", "/weights")
    fetched = [c for c in CARDS.values() if c.weights.startswith(("hf:", "url:"))]
    homes: dict[Path, set[tuple[str, str]]] = {}
    for each in fetched:
        homes.setdefault(weights.home(each), set()).add((each.weights, each.revision))

    assert {home: who for home, who in homes.items() if len(who) > 1} == {}
    assert [home for home in homes if homes.keys() & set(home.parents)] == []


def test_a_card_of_your_own_weights_forgets_the_hash_of_the_published_ones(tmp_path, monkeypatch):
    monkeypatch.setitem(CARDS, "net", Card("detect", "", weights="url:https://x/net.pt", sha256="0" * 64))
    (tmp_path / "mine.pt").write_bytes(b"mine")

    assert weights.find(card(f"net:{tmp_path / 'mine.pt'}")) == tmp_path / "mine.pt"
