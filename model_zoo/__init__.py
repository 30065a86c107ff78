"""All networks of the project, by name. Nothing is imported or read before load()."""

from typing import TYPE_CHECKING, Any

from model_zoo import torchvision_shim

if TYPE_CHECKING:
    from model_zoo.cards import Card, card, load, revision

__all__ = ["Card", "card", "load", "revision"]

torchvision_shim.install()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # numpy takes most of the start-up of a command that does not need it
    from model_zoo import cards

    return getattr(cards, name)
