"""Lambda detectors, whose modules are files of their own: names, places in the assembled frame, masks, reading.

For conversion.
Never writes a file.
"""
