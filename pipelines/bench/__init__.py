"""The two benchmarks: A2-Bench for videos, TripletBench for triplets."""
