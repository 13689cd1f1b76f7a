"""A frame of a run, with everything that its request to the server contains."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from petif_bluesky.documents.darks import FoundDark, Light
from petif_bluesky.maps.points import Spot
from tango_server.messages import MapPoint


def frame_key(run_uid: str, source: str, data_key: str = "", frame: int | None = None) -> str:
    """Return the key that makes a request idempotent: the same key is the same job, across sessions and versions.

    `frame` is the index in a file with several frames, None if each frame has its own file.

    >>> frame_key("1f", "/raw/a.tif", "pe_image")
    '1f/pe_image//raw/a.tif'
    >>> frame_key("1f", "/raw/a.h5::/entry/data", "eiger_image", frame=7)
    '1f/eiger_image//raw/a.h5::/entry/data#7'
    >>> frame_key("1f", "/raw/a.tif")
    '1f//raw/a.tif'
    """
    whole = f"{run_uid}/{data_key}/{source}" if data_key else f"{run_uid}/{source}"
    return whole if frame is None else f"{whole}#{frame}"


@dataclass(frozen=True, slots=True)
class InEvent:
    """The place of a frame in its event, for its group.

    `number`: its index among the frames of its data key in the event; `count`: how many these are. `event`: uid of the
    event, "" if there is none. `values`: of the keys by which frames are grouped; `problem`: why they are unknown.
    """

    number: int = 0
    count: int = 1
    event: str = ""
    values: tuple[float, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a run.

    `path`: as given by the detector, after the selection's path map; with `::/data/set` if the documents name one.
    `frame`: its index in a file of several frames, None for a file of its own. `stream`, `data_key`: None and "" for
    files given by name. `recipe`: from the start document, not validated, since the server refuses each frame with an
    invalid one. `metadata`: JSON-compatible and within the server's size limit. `light`: what determines its dark, None
    if the recipe does not want that of the run. `dark`: the dark, if it was looked for.

    With a recipe that combines frames, `in_event` is what determines its group, and `Groups.add` adds the rest:
    `group`, `member` and `members`, or the `problem` why it is in none; `supersedes`: the key of an earlier frame whose
    point was taken again.

    With a map, `spot` is where the frame was taken, and `RunMaps.placed` adds the point, `map`, or `off_map`, why it
    belongs to none.
    """

    path: str
    seq_num: int
    run_uid: str = ""
    stream: str | None = None
    data_key: str = ""
    recipe: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    light: Light | None = None
    dark: FoundDark | None = None
    frame: int | None = None
    in_event: InEvent | None = None
    group: str = ""
    member: int = 0
    members: int | None = None
    supersedes: str = ""
    problem: str = ""
    spot: Spot | None = None
    map: MapPoint | None = None
    off_map: str = ""

    @property
    def key(self) -> str:
        """The key that makes its request idempotent."""
        return frame_key(self.run_uid, self.path, self.data_key, self.frame)

    def request(self) -> dict[str, Any]:
        """Return the fields of a `FrameRequest` as a dict; the server validates it, and building the model is slow."""
        recipe, metadata = self.recipe, self.metadata
        if self.dark is not None:
            recipe, metadata = self.dark.applied(recipe, metadata)
        problems = {"group": self.problem, "map": self.off_map}
        if problems := {name: problem for name, problem in problems.items() if problem}:
            metadata = {**metadata, "left_out": {**metadata.get("left_out", {}), **problems}}
        # old servers refuse fields that they don't know
        newer: dict[str, Any] = {} if self.frame is None else {"frame": self.frame}
        if self.group:
            newer |= {"group": self.group, "member": self.member}
            newer |= {} if self.members is None else {"members": self.members}
        if self.map is not None:
            newer["map"] = self.map.model_dump(mode="json")
        if self.supersedes:
            newer["supersedes"] = self.supersedes
        return {
            "source": self.path,
            "recipe": recipe,
            "key": self.key,
            "run_uid": self.run_uid,
            "stream": self.stream,
            "seq_num": self.seq_num,
            "metadata": metadata,
            **newer,
        }
