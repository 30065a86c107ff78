"""Commands over a finished corpus: calibrate, explain, forget."""
