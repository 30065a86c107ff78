"""TripletBench: films with ground truth, and a score of a pipeline's triplets on them (docs/triplet-bench.md)."""
