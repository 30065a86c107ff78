"""TripletBench: films whose truth is known, and a score of the triplets that a pipeline makes of them (docs/triplet-bench.md)."""
