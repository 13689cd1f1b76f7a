"""The commands of `petif`, one module each, and what they share.

For the entry points alone.
Nothing heavy is imported before a command is called; no logic that a server or a program would need.
"""
