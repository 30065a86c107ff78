"""The study page for raters, the judge model, and their agreement."""
