"""The durable queue and history in one SQLite file; nobody else touches it.

For the runner, the engine and the reception of requests.
Never decides what becomes of a job.
"""
