"""Which frames become one where no run says so: `every` n of a call, in the natural order of their names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.jobs.group_counting import counted_groups, frame_order
from tango_server.messages import FrameRequest
from tango_server.recipe import Recipe
from tango_server.recipe.combine import Combine, Every
from tango_server.text import split_data_set

_CONTAINERS = {".h5", ".hdf", ".hdf5", ".nx5", ".nxs"}


def is_container(source: str) -> bool:
    """Whether the name of a file is that of one with several frames, which are counted in the file itself."""
    file, data_set = split_data_set(source)
    return bool(data_set) or PurePath(file).suffix.lower() in _CONTAINERS


def every_of(combine: Combine | None) -> int | None:
    """Return how many frames become one by counting; None if none do, or a run says which."""
    return combine.of.every if combine is not None and isinstance(combine.of, Every) else None


@dataclass(frozen=True, slots=True)
class Places:
    """The fields of the requests of counted frames, and the groups that have fewer frames than `every`."""

    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    short: dict[str, int] = field(default_factory=dict)


NO_PLACES = Places()


def place_of(name: str, number: int, every: int) -> dict[str, Any]:
    """Return the fields of a request for the frame `number`, counted from 0; `name` begins the group's id.

    >>> place_of("scan", 7, 3)
    {'group': 'scan/2', 'member': 1, 'members': 3}
    """
    return {"group": f"{name}/{number // every}", "member": number % every, "members": every}


def places_of(name: str, sources: Iterable[str], every: int) -> Places:
    """Return the places of frames in groups of `every`, by source; frames in a container are counted there.

    >>> places_of("call", ["/a/p-10.tif", "/a/p-9.tif", "/a/p-11.tif"], 2).fields["/a/p-10.tif"]
    {'group': 'call/0', 'member': 1, 'members': 2}
    """
    named: dict[FrameLocation, list[str]] = {}
    for source in sources:
        if not is_container(source):
            named.setdefault(FrameLocation.of(source), []).append(source)
    places = Places()
    for number, group in enumerate(counted_groups(named, every)):
        for member, frame in enumerate(group):
            fields = place_of(name, number * every + member, every)
            places.fields.update(dict.fromkeys(named[frame], fields))
        if len(group) < every:
            places.short[f"{name}/{number}"] = every
    return places


def grouped(
    requests: Sequence[Mapping[str, Any]], recipe: Recipe, name: str
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the requests of a call with their places in groups, and its short groups with their numbers of members.

    `recipe` is for requests without one. Only plain names are counted: not requests of a run, or with a key, which may
    come again in another call.
    """
    counted: dict[int, list[int]] = {}
    everies = [_every_in(request, recipe) for request in requests]
    for index, every in enumerate(everies):
        if every is not None:
            counted.setdefault(every, []).append(index)
    answer = [dict(request) for request in requests]
    short: dict[str, int] = {}
    for every, indices in counted.items():
        places = places_of(f"{name}/{every}", (str(requests[index]["source"]) for index in indices), every)
        for index in indices:
            answer[index] |= places.fields[str(requests[index]["source"])]
        short |= places.short
    return answer, short


def _every_in(request: Mapping[str, Any], recipe: Recipe) -> int | None:
    source = request.get("source")
    if any(request.get(name) is not None for name in ("group", "member", "frame", "key", "run_uid")):
        return None
    if not isinstance(source, str) or is_container(source):
        return None
    if (given := request.get("recipe")) is None:
        return every_of(recipe.combine)
    match given:
        case {"combine": {"of": {"every": int() as every}}} if every > 0:
            return every
    return None


def problem_with(request: FrameRequest) -> str:
    """Return why a request cannot be a member of a group, or needs to be one; empty if it is fit."""
    combine = None if request.recipe is None else request.recipe.combine
    if (request.group is None) != (request.member is None):
        return "group and member belong together"
    if request.placeholder is not None:
        return "" if request.group is None else "a placeholder stands for a whole group, never for a member"
    if combine is None:
        return "" if request.group is None else "it has a group, but its recipe combines no frames"
    if request.group is not None:
        return ""
    return _problem_without_group(request, combine)


def _problem_without_group(request: FrameRequest, combine: Combine) -> str:
    """Return why a request that combines is in no group; empty if it will be in one."""
    left_out = request.metadata.get("left_out")
    if isinstance(left_out, dict) and isinstance(why := left_out.get("group"), str):
        return f"it is in no group: {why}"
    if every_of(combine) is None:
        return (
            "combine needs the documents of a run, which say what belongs together, or a group and a member in the "
            'request; without them, use "of": {"every": n}'
        )
    if is_container(request.source) and request.frame is None:
        return ""
    return (
        "it needs a group and a member: only AddFiles, AddFolder, and a Submit without run, key and frame, count "
        "frames by themselves"
    )


def in_natural_order(paths: Iterable[str]) -> list[str]:
    """Return paths in the order in which they are counted, each once."""
    return sorted(dict.fromkeys(paths), key=lambda path: frame_order(FrameLocation.of(path)))
