"""Detectors, masks and trackers."""
