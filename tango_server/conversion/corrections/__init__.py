"""Dark, flat, mask and saturation: reading masters, checking that they fit a frame, and applying them block by block.

For conversion, its commands and the pictures.
Never knows a queue or a run.
"""
