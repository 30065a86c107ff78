"""Captioners, the experts beside them, and the fusion of what they report."""
