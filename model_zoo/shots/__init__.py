"""Shot boundaries."""
