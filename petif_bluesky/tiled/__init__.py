"""Reading from and writing to a Tiled catalogue.

Used by plans, `petif subscribe` and sessions with a catalogue.
Never imported in sessions without one, because importing Tiled takes seconds.
"""
