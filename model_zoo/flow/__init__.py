"""Optical flow and frame interpolation."""
