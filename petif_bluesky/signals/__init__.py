"""The parts of the ophyd Device: its signals, and the status of a run that is waited for.

For converter.py and the plans.
Never waits for the server: it reads what the poller has seen last.
"""
