"""Every network the project can use, by name. Nothing is imported or read before load()."""

from model_zoo.cards import Card, card, load, revision

__all__ = ["Card", "card", "load", "revision"]
