"""Augmentation of training samples before they are encoded."""
