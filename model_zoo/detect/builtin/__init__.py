"""The detector without weights of its own: faces, motion and colour."""
