"""The output of a recipe: a new file, or in place of the source."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tango_server.limits import LONGEST_ID, LONGEST_SOURCE
from tango_server.recipe.base import Frozen

OnExisting = Literal["replace_own", "skip", "refuse", "number"]
FileMode = Annotated[str, Field(pattern=r"^(0?[0-7]{3}|source)$")]  # no setuid bit by request of a client
FolderMode = Annotated[str, Field(pattern=r"^([0-3]?[0-7]{3}|source)$")]


class NewFile(Frozen):
    """Write a new file and leave the source untouched.

    Without `folder` the path rule decides: the path component `raw` becomes `processed`. `template` makes the name from
    fields of the frame, for example `{run}_{stem}_{index:05d}`: stem and index (the last number) of the source's name,
    run, seq_num, and the frame's metadata. Without it the source's name is used.
    `on_existing` says what to do if the output exists: `replace_own` replaces an output of the same source and refuses
    other files, `skip` keeps the file, `refuse` fails, `number` appends `-00001`. A placeholder of the same source is
    always replaced.
    A source that is itself an output is refused, unless `force`.
    `preserve_mtime` gives the output the source's modification time. `file_mode`, `folder_mode` (octal, such as "0664"
    and "2775") and `group` are for new files and folders in shared places; the mode "source" is that of the raw frame,
    or of its folder, with its group.
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
    """Replace the source by its conversion, atomically and flushed to disk first; its permissions stay.

    `backup` keeps a copy of the source, with `.orig` appended to its name. A file already converted with another
    recipe is refused, unless `force`. Frames of a bluesky run need `allow_in_place`: the run's documents describe the
    raw file, and replacing it makes them wrong.
    """

    mode: Literal["in_place"] = "in_place"
    backup: bool = False
    force: bool = False
    preserve_mtime: bool = False
    allow_in_place: bool = False


def _with_mode(value: object) -> object:
    return {"mode": "new", **value} if isinstance(value, dict) else value


Output = Annotated[NewFile | InPlace, Field(discriminator="mode"), BeforeValidator(_with_mode)]
