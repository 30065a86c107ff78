"""Parts of `a2data sample`: jobs, validation, the sampler, output files and execution on Ray."""
