"""Encoding of packed triplets: settings, augmentation and the tensors of one sample."""
