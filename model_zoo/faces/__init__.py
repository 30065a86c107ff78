"""Face detection and recognition."""
