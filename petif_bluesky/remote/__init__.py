"""The callback in another process than the RunEngine, fed over 0MQ.

For `petif subscribe`.
Never unpickles what could run a program, and never needs ophyd.
"""
