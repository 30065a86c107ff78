"""Folders and tables: local or behind a URL, written at once or not at all, with checksums."""
