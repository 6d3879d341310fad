"""The paper's experiments as named, resumable recipes: worlds, training runs, scores, tables and plots."""
