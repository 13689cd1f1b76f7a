"""The client's side of the server: addresses are opened, calls made, answers parsed, a server started.

For commands, the monitor and the bluesky side.
Never knows what a job is beyond the wire contract in messages.py.
"""
