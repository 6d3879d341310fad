"""The network alone: embeddings, layers, transformer, heads, frame cache. Imports nothing of ours but errors."""
