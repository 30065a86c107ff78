"""The real networks of the builtin profile, where they have been fetched."""

from typing import Any

import pytest

from model_zoo import cards, weights


def network(name: str) -> Any:
    """Load the card of that name; skip the test, with the command, where its weights are missing."""
    pytest.importorskip("ai_edge_litert")
    for card in (cards.base_card(name), *map(cards.base_card, cards.base_card(name).companions)):
        if weights.fetched(card) and weights.located(card) is None:
            pytest.skip(f"{card.name}: {weights.how_to_get(card)}")
    return cards.load(name)
