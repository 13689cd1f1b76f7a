"""The job service: requests in, reports out, durable in between.

Used by the device, `petif convert` and `petif watch`.
Knows nothing of Tango; nothing that may block runs in the engine's thread.
"""
