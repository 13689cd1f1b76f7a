"""The durable queue and history, in one SQLite file that nothing else accesses.

Used by the runner, the engine and the intake of requests.
Stores; makes no decisions about jobs.
"""
