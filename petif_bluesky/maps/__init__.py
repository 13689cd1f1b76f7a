"""Maps: one frame for every point of a grid of positions."""
