"""The detector that needs no weights of its own: faces, motion and colour."""
