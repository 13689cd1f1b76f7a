"""The provenance of an ESPERANTO frame, in the line HISTORY of its header.

`petif-bluesky 0.1.0 recipe=8b67ad0de32de42b rotation=180 flip=none from=1f0c2233 job=4f3c11d0a2b3c4d5
source=pat-00017.tif`, in one line: the recipe's content hash and orientation, the rest as in the
provenance of a TIFF. The source's name is percent-encoded, and cut at the end of the line. Frames of earlier versions
have no orientation.
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from tango_server.conversion.esperanto.header import longest_text
from tango_server.conversion.tiff.provenance import Provenance, origin_of, software
from tango_server.recipe import Recipe

_RECORD = re.compile(
    r"petif-bluesky (?P<version>\S+) recipe=(?P<hash>\w+)"
    r"(?: rotation=(?P<rotation>0|90|180|270) flip=(?P<flip>none|0|1|both))? from=(?P<origin>\w+)(?: job=(?P<job>\S+))?"
    r"(?P<placeholder> placeholder)? source=(?P<source>\S*)"
)


def history(recipe: Recipe, source: Path, output: Path, *, placeholder: bool = False, job: str | None = None) -> str:
    """Return the text of the line HISTORY."""
    words = [software(), f"recipe={recipe.content_hash}", f"rotation={recipe.rotation}", f"flip={recipe.flip}"]
    words += [f"from={origin_of(source, output)}"]
    words += [f"job={job}"] if job is not None else []
    words += ["placeholder"] if placeholder else []
    name = quote(source.name.encode("utf-8", "surrogateescape"))
    return " ".join([*words, f"source={name}"])[: longest_text("HISTORY")]


def provenance_in(text: str) -> Provenance | None:
    """Return the provenance in the line HISTORY of a frame that we wrote, None for every other frame."""
    found = _RECORD.fullmatch(text)
    if found is None:
        return None
    turned: dict[str, Any] | None = None
    if found["rotation"] is not None:
        turned = {"format": "esperanto", "rotation": int(found["rotation"]), "flip": found["flip"]}
    return Provenance(
        recipe=turned,
        source=unquote(found["source"], errors="replace"),
        origin=found["origin"],
        version=found["version"],
        placeholder=found["placeholder"] is not None,
        job=found["job"],
        content_hash=found["hash"],
    )
