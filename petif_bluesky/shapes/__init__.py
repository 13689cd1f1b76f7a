"""The ways in which run documents tell of files, one module each. Pure: text in, text out."""
