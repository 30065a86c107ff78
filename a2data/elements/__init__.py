"""Elements from detections: tracks, cut-outs, background colours, phrases."""
