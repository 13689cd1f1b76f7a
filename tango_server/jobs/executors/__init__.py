"""Where conversions run: in worker processes or on a Dask cluster.

Used by the engine through the interface in base.py.
Knows nothing of the queue or the ledger.
"""
