"""EDF frames (ESRF data format): the blocks of a file, their completeness, their pixels.

For conversion, and for jobs that check whether a file is complete.
Never knows a recipe.
"""
