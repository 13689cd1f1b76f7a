"""The client side: connects to a server, calls it, parses the answers; starts a local server.

Used by the commands, the monitor and petif_bluesky.
Knows nothing of jobs beyond the wire contract in messages.py.
"""
