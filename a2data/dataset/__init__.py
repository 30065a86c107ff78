"""The data set on disk: the triplet, the shards' writer and reader, the order of batches, the loader."""
