"""The job service: requests in, reports out, durable in between.

For the device, `petif convert` and `petif watch`.
Never knows Tango; what may block never runs in the engine's thread.
"""
