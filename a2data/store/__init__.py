"""Folders and tables, local or in object stores, with atomic writes and checksums."""
