"""The data set on disk: triplets, shard writer and reader, batch order, loader."""
