"""Training: the loop, its optimiser and guard, what it needs before it starts, what it shows."""
