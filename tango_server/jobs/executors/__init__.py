"""Where conversions run: worker processes, or a Dask cluster, and what runs there.

For the engine, by the interface in base.py.
Never knows the queue or the ledger.
"""
