"""Optical flow, and the frame between two."""
