"""Rows that a product is padded to. Standard library alone: plans of memory count with it."""


def padded(count: int) -> int:
    """Rows that so many are padded to: 16 sizes between one power of two and the next, at most a sixteenth more."""
    size = 1 << max(0, count.bit_length() - 5)
    return -(-count // size) * size
