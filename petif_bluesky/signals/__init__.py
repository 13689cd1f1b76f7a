"""The parts of the ophyd Device: its signals, and the status that waits for a run.

Used by converter.py and the plans.
Never waits for the server: it uses the last state from the poller.
"""
