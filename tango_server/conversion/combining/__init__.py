"""Several frames become one: methods for pixels (`streaming`, `bands`), and groups of files (`group`).

>>> from tango_server.conversion.combining.group import Member, convert_group
"""
