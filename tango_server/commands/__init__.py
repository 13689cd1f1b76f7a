"""The commands of `petif`, one module each, and what they share.

Used by the entry points only. Heavy imports wait until a command is called; logic that a server or a program needs is
elsewhere.
"""
