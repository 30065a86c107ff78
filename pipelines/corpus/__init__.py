"""Commands for a finished corpus: calibrate, explain, forget."""
