"""Encoding of packed triplets: the stage, its settings, augmentation and the tensors of one sample."""
