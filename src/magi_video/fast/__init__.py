"""What changes seconds and no result: kernels, smaller passes, compiling, precision, threads, memory.

One door: `speed_up` puts faster classes in the place of a model's plain ones, from outside, and `restore` takes them
back. Names and values of the weights stay. `FastPast` is the past of a rollout over such a model.
"""
