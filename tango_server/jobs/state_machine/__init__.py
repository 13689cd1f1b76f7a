"""The state of each job, from events and clock readings only.

Used by the engine, which carries out the instructions.
Starts no threads, reads no clock, and accesses no file, executor or ledger.
"""
