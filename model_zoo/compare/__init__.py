"""Embedders and copy detectors."""
