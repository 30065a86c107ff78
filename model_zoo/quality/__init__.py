"""Aesthetics, text, sharpness, and content that is not safe."""
