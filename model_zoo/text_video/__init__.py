"""Text-video similarity."""
