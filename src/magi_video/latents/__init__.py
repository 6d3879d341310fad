"""Latent caches: a data set encoded once, in shards, read at random."""
