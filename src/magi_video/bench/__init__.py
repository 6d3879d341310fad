"""Speed and cost: `magi bench` measures a model, `magi plan` computes what a training run needs."""
