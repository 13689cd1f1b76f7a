"""What is written to a catalogue and read from it.

For plans, `petif subscribe` and sessions with a catalogue.
Never imported by a session without one: Tiled takes seconds to import.
"""
