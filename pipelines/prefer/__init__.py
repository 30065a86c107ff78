"""Preference pairs: made by rule, judged by people, and learned by a reward model."""
