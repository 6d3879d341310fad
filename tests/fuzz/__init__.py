"""Fuzzing of everything that reads files of others: `python -m tests.fuzz --inputs 20000`."""
