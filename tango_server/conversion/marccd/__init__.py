"""What a MarCCD or Rayonix detector writes into its TIFF before the pixels.

For the reading of TIFFs.
Never reads a file.
"""
