"""From a model to frames: how to sample, the past of finished frames, the rollout over frames."""
