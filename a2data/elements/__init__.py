"""From detections to elements: tracks, cut-outs, background colours, phrases."""
