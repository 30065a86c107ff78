"""Every network the project can use, by name. Nothing is imported or read before load()."""

from model_zoo.cards import CARDS, Card, card, load, revision

__all__ = ["CARDS", "Card", "card", "load", "revision"]
