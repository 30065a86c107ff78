"""Aesthetics, text, sharpness, and unsafe content."""
