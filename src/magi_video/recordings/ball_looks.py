"""What the bouncing balls look like: needed to draw them and to read them, without Gymnasium."""

RADIUS = 0.14
"""Of a ball, in sides of the box."""
COLOURS = ((255, 208, 64), (64, 160, 255), (255, 96, 112), (128, 232, 128))
"""Of the balls, in their order: red, green, blue."""
