"""Rendered films with ground truth."""
