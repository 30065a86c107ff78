"""Films with ground truth, rendered here."""
