"""CBF frames as Dectris detectors write them: the binary section, its completeness, its pixels.

For conversion, and for jobs that check whether a file is complete.
Never knows a recipe.
"""
