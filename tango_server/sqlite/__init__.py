"""SQLite files in WAL mode: how they are opened, written, read beside that, kept small, and put aside when damaged.

For the ledger, the folder watch and a session's spool; each brings its own tables.
Never decides how durable a commit must be or who may share a file: its caller says so.
"""
