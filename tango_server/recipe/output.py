"""Where a recipe's output goes: to a new file, or in place of the source."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tango_server.limits import LONGEST_ID, LONGEST_SOURCE
from tango_server.recipe.base import Frozen

OnExisting = Literal["replace_own", "skip", "refuse", "number"]
FileMode = Annotated[
    str, Field(pattern=r"^(0?[0-7]{3}|source)$")
]  # no setuid bit for a file that a client has described
FolderMode = Annotated[str, Field(pattern=r"^([0-3]?[0-7]{3}|source)$")]


class NewFile(Frozen):
    """Write a new file and leave the source untouched.

    Without `folder` the path rule decides: the path component `raw` becomes `processed`. `template` names the file
    after fields of the frame, as `{run}_{stem}_{index:05d}`: stem and index (its last number) of the source's name,
    run, seq_num, and the frame's metadata; without it the source's name stays.
    `on_existing` says what happens to a file that already has the output's name: `replace_own` replaces what we made
    of the same source and refuses everything else, `skip` leaves it, `refuse` fails, `number` appends `-00001`. A
    placeholder of the same source is no frame, and always replaced.
    A source that is an output itself is refused, unless `force`.
    `preserve_mtime` gives the output the source's modification time. `file_mode`, `folder_mode` (octal, as "0664" and
    "2775") and `group` are for new files and folders in shared places; the mode "source" is that of the raw frame, or
    of its folder, with its group.
    """

    mode: Literal["new"] = "new"
    folder: str | None = Field(default=None, max_length=LONGEST_SOURCE)
    template: str | None = Field(default=None, min_length=1, max_length=LONGEST_ID)
    on_existing: OnExisting = "replace_own"
    force: bool = False
    preserve_mtime: bool = False
    file_mode: FileMode | None = None
    folder_mode: FolderMode | None = None
    group: str | None = Field(default=None, max_length=LONGEST_ID, pattern=r"^[^\x00-\x1f]+$")


class InPlace(Frozen):
    """Replace the source by its conversion, atomically and flushed to disk first; its permission bits stay.

    `backup` keeps a copy of the source beside it, with `.orig` appended to its name. A file that was converted in place
    with another recipe is refused, unless `force`. `allow_in_place` must be set for frames of a bluesky run: the run's
    documents describe the raw file, and replacing it makes them wrong.
    """

    mode: Literal["in_place"] = "in_place"
    backup: bool = False
    force: bool = False
    preserve_mtime: bool = False
    allow_in_place: bool = False


def _with_mode(value: object) -> object:
    return {"mode": "new", **value} if isinstance(value, dict) else value


Output = Annotated[NewFile | InPlace, Field(discriminator="mode"), BeforeValidator(_with_mode)]
