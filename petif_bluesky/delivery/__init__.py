"""Delivery of requests to the server: per-run counts of a session, and the thread that sends spooled requests.

The callback adds frames and the sender sends them; nothing else does.
Never blocks the RunEngine's thread, and never sees documents.
"""
