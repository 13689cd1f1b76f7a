"""The Tango device: commands, attributes, properties, events, and the process that serves them.

For cli.py and `petif serve`.
Translates, and computes nothing.
"""
