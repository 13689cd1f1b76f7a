"""What becomes of each job, from events and clock readings alone.

For the engine, which does what the machine says.
Never starts a thread, reads a clock or touches a file, an executor or the ledger.
"""
