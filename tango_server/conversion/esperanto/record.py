"""The provenance of an ESPERANTO frame, in the line HISTORY of its header.

`petif-bluesky 0.1.0 recipe=8b67ad0de32de42b rotation=180 flip=none from=1f0c2233 job=4f3c11d0a2b3c4d5
dark=1f0c22334455 masked=22 overexposed=3 source=pat-00017.tif`, in one line: the recipe's content hash and orientation;
of several frames in one `combined=sum,8of10,1f0c22334455`: method, number, and the first digits of their list's hash;
of a corrected frame the first digits of the SHA-256 of `dark`, `flat` and `mask`, and counts of pixels; the rest as in
the provenance of a TIFF. The source's name is percent-encoded, and cut at the end of the line. Frames of earlier
versions have no orientation.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

from tango_server.conversion.esperanto.header import longest_text
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.provenance import Provenance, origin_of, software
from tango_server.messages import Master, PixelCounts
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import KINDS, Kind

_HASH_DIGITS = 12

_RECORD = re.compile(
    r"petif-bluesky (?P<version>\S+) recipe=(?P<hash>\w+)"
    r"(?: rotation=(?P<rotation>0|90|180|270) flip=(?P<flip>none|0|1|both))? from=(?P<origin>\w+)(?: job=(?P<job>\S+))?"
    r"(?P<placeholder> placeholder)?"
    r"(?: combined=(?P<method>\w+),(?P<used>\d+)of(?P<frames>\d+),(?P<list>\w+))?"
    r"(?P<masters>(?: (?:dark|flat|mask)=[0-9a-f]{12})*)(?: masked=(?P<masked>\d+))?"
    r"(?: overexposed=(?P<overexposed>\d+))? source=(?P<source>\S*)"
)


def history(
    recipe: Recipe,
    source: FrameLocation,
    output: Path,
    *,
    placeholder: bool = False,
    job: str | None = None,
    masters: Sequence[Master] = (),
    combined: Mapping[str, Any] | None = None,
    pixels: PixelCounts | None = None,
) -> str:
    """Return the text of the line HISTORY; of several darks, the first one."""
    words = [software(), f"recipe={recipe.content_hash}", f"rotation={recipe.rotation}", f"flip={recipe.flip}"]
    words += [f"from={origin_of(source, output)}"]
    words += [f"job={job}"] if job is not None else []
    words += ["placeholder"] if placeholder else []
    if combined is not None:
        digits = combined["frames_sha256"][:_HASH_DIGITS]
        words += [f"combined={combined['method']},{combined['used']}of{combined['frames']},{digits}"]
    named = {master.kind: master.sha256[:_HASH_DIGITS] for master in reversed(masters)}
    words += [f"{kind}={named[kind]}" for kind in KINDS if kind in named]
    if pixels is not None:
        words += [f"masked={pixels.masked}"]
        words += [] if pixels.overexposed is None else [f"overexposed={pixels.overexposed}"]
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
        masters=tuple(
            Master(kind=cast("Kind", kind), path="", sha256=digits)
            for kind, _, digits in (word.partition("=") for word in found["masters"].split())
        ),
        masked=int(found["masked"] or 0),
        overexposed=int(found["overexposed"]) if found["overexposed"] else None,
        combined=None
        if found["method"] is None
        else {
            "method": found["method"],
            "frames": int(found["frames"]),
            "used": int(found["used"]),
            "frames_sha256": found["list"],
        },
    )
