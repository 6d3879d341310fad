"""Videos in and out: reading and writing files, data sets, clips for training, cached latents, recorded gameplay.

To add a data set with a layout of its own, write one file beside `ucf101.py`: a subclass of `VideoFolder` that finds
the files and their classes and hands them to `_add`, which does the rest (counting frames, skipping what cannot be
read, finding actions). To add a family of games, see `games.py`.
"""
