"""The callback in a process other than the RunEngine's, fed over 0MQ.

Used by `petif subscribe`.
Never unpickles anything that could run code, and never needs ophyd.
"""
