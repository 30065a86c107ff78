"""The SkyReels-A2 network: pipeline, conditions, guidance, acceleration, parallelism, training objective."""
