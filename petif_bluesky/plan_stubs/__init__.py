"""What plans and preprocessors add to a run: waiting for reports, and an event per frame.

Used by preprocessors.py and plans.py.
Never calls a server in the RunEngine's thread.
"""
