"""Stages for a data set that others made: they state what it says instead of measuring it."""
