"""How well a text fits a video."""
