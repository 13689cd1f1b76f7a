"""From run documents to frames and to what is known of each.

Pure: everybody may enter, with documents as dicts.
Never looks at a file, a clock, a server, ophyd or a RunEngine.
"""
