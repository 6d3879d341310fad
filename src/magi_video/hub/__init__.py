"""Publishing: the model card, the hub, exported programs."""
