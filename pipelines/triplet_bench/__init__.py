"""TripletBench: films whose truth is known, and a score of the triplets that a pipeline makes of them. See docs/triplet-bench.md."""
