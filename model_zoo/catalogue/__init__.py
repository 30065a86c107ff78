"""All models by name. NAME:PATH is the card NAME with your own weights."""

from model_zoo.catalogue import bench, caption, compare, detect, people, quality, sound
from model_zoo.roles import Card

CARDS: dict[str, Card] = {
    **quality.CARDS,
    **detect.CARDS,
    **people.CARDS,
    **compare.CARDS,
    **caption.CARDS,
    **bench.CARDS,
    **sound.CARDS,
}
