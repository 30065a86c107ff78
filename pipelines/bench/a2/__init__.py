"""A2-Bench: how faithfully a model places given people, objects and backgrounds in a video (Fei et al., arXiv 2504.02436)."""
