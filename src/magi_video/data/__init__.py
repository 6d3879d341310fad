"""Data sets: which videos there are, their classes, captions and recorded actions, and clips of them for training.

How to add one
--------------
Write a file here with a subclass of `VideoFolder` under `@register`: it finds the files and their classes and hands
them to `_add`, which does the rest (counting frames, skipping what cannot be read, finding actions).
"""
