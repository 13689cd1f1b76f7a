"""The parts of the devices: signals of the classic one, and the status that waits for a run.

Used by both devices and the plans.
Never waits for the server: it uses the last state from the poller.
"""
