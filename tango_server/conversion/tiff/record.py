"""The provenance and the acquisition time in the tags of a TIFF."""

from datetime import datetime

from tango_server.conversion.provenance import TIFF_TIME, Provenance, provenance_in_description, tiff_time
from tango_server.conversion.tiff.structure import Page, Structure


def read_provenance(structure: Structure) -> Provenance | None:
    """Return the provenance of a file that we wrote, None for every other file."""
    if structure.state != "complete" or not structure.pages:
        return None
    return provenance_in_description(structure.pages[0].texts.get("description", ""))


def acquired(page: Page, mtime_ns: int) -> str:
    """Return the acquisition time in TIFF's form: the DateTime tag, else the file's modification time."""
    text = page.texts.get("datetime", "")
    try:
        datetime.strptime(text, TIFF_TIME)
    except ValueError:
        return tiff_time(mtime_ns / 1e9)
    return text
