"""`a2data ui`: a local Gradio page to sample videos, look at a work folder, mark its pairs, and browse packed shards."""
