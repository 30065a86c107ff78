"""All networks of the project, by name. Nothing is imported or read before load()."""

from model_zoo import torchvision_shim
from model_zoo.cards import card, load, revision
from model_zoo.roles import Card

__all__ = ["Card", "card", "load", "revision"]

torchvision_shim.install()
