"""The list of the frames that became one, beside their output: `name.tif.members.csv`.

The tags of the output have only the number and a hash of the frames that were used: a long list in a header breaks
readers. A line has `frame`, the relative path from the folder of the output, with the data set and index of a frame in
a container (`run.h5::/entry/data#3`); `outcome`, `grouped` if the frame was used; and `reason`, why not.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tango_server.conversion.errors import SourceMissingError, SourceUnreadableError
from tango_server.conversion.files.atomic_write import Attempt, publish, write_parts
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.files.sandbox import open_file
from tango_server.conversion.provenance import hash_of_ways, way_to
from tango_server.messages import GroupMember

_COLUMNS = ["frame", "outcome", "reason"]
_LARGEST = 2**26  # bytes: 10,000 frames with long paths and reasons
_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}
_LOST = "Its frames are in the report of the group; combine them again to get the list."


def member_list_path(output: Path) -> Path:
    """Return the path of the list that belongs to a combined frame."""
    return output.with_name(output.name + ".members.csv")


def write_member_list(
    locations: Sequence[FrameLocation], members: Sequence[GroupMember], output: Path, attempt: Attempt, roots: Roots
) -> None:
    """Write the list of all frames of a group; raise `OutputWriteError` if it cannot be written.

    `members` say what became of those at the `locations`; their own paths are for people.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for location, each in zip(locations, members, strict=True):
        table.writerow((way_to(location, output), each.outcome, each.reason))
    publish(member_list_path(output), write_parts([text.getvalue().encode(**_ENCODING)]), attempt, roots)


def read_member_list(output: Path, combined: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return `source`, `outcome` and `reason` of each frame of a group, in their order.

    `combined` is what the tags of the output say.

    Raises
    ------
    SourceMissingError
        if there is no list.
    SourceUnreadableError
        if it cannot be read, or is that of other frames.
    """
    path = member_list_path(output)
    try:
        with open_file(path, ANYWHERE.read) as file:
            text = file.read(_LARGEST + 1).decode(**_ENCODING)
        columns, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    except FileNotFoundError:
        raise SourceMissingError(path, "the list of the combined frames is missing", _LOST) from None
    except (OSError, ValueError, csv.Error) as error:
        raise SourceUnreadableError(path, f"cannot read the list of the combined frames ({error})", _LOST) from None
    used = [line[0] for line in lines if len(line) > 1 and line[1] == "grouped"]
    told, digits = combined.get("frames"), str(combined.get("frames_sha256"))  # of ESPERANTO the first digits only
    if columns != _COLUMNS or any(len(line) != len(_COLUMNS) for line in lines) or len(lines) != told or not digits:
        raise SourceUnreadableError(path, "not the list of this combined frame", _LOST)
    if not hash_of_ways(used).startswith(digits):
        raise SourceUnreadableError(path, "the list of other frames than those that were combined", _LOST)
    folder = os.path.realpath(output.parent)
    return [
        {"source": os.path.normpath(Path(folder, way)), "outcome": outcome, "reason": reason}
        for way, outcome, reason in lines
    ]
