"""A2-Bench: how well a model puts given people, things and places into a video (Fei et al. 2025, arXiv 2504.02436)."""
