"""Paths and files: roots, opening without following links, atomic writing, names of outputs.

For conversion, jobs and commands.
Never reads pixels.
"""
