"""The commands of `petif` that need bluesky, one module each.

For the entry points alone.
Nothing heavy is imported before a command is called.
"""
