"""The stages of long tasks, in words."""

TITLES = {
    "videos": "looking through the videos",
    "codec": "training the codec",
    "latents": "encoding latents",
    "model": "training the model",
}
"""Of the stages of training; others are called what they are."""
