"""What `a2data train` is made of: settings, the samples, processes, checkpoints, validation, log, export, plan."""
