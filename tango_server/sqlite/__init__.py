"""SQLite files in WAL mode: opening, concurrent reading and writing, keeping them small, setting damaged ones aside.

For the ledger, the folder watch and a session's spool, each with its own tables.
Never decides how durable a commit must be or who may share a file: the caller does.
"""
