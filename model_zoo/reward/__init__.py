"""Reward models: networks that score a video, trained on preference pairs."""
