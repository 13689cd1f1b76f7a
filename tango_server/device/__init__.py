"""The Tango device: commands, attributes, properties, events, and the process that serves them.

Used by cli.py and `petif serve`.
Only translates; computes nothing.
"""
