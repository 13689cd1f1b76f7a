"""What plans and preprocessors add to a run: waiting for its reports, and the events of its frames.

For preprocessors.py and plans.py.
Never talks to a server within the RunEngine's thread.
"""
