"""Parts of `a2data train`: settings, samples, processes, checkpoints, validation, log, export and cost estimate."""
