"""Which frames become one where no run says so: `every` n of a call, in the natural order of their names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from tango_server.messages import FrameRequest
from tango_server.recipe import Recipe
from tango_server.recipe.combine import Combine, Every
from tango_server.text import split_data_set

_CONTAINERS = {".h5", ".hdf", ".hdf5", ".nx5", ".nxs"}
_DIGITS = re.compile(r"(\d+)")


def natural_key(path: str) -> tuple[tuple[int, int, str], ...]:
    """Return the key that sorts names with numbers as people do.

    >>> sorted(["a10.tif", "a9.tif", "a1_2.tif"], key=natural_key)
    ['a1_2.tif', 'a9.tif', 'a10.tif']
    """
    parts = _DIGITS.split(path)
    return tuple((1, int(part), part) if number % 2 else (0, 0, part) for number, part in enumerate(parts))


def is_container(source: str) -> bool:
    """Whether the name of a file is that of one with several frames, which are counted in the file itself."""
    file, data_set = split_data_set(source)
    return bool(data_set) or PurePath(file).suffix.lower() in _CONTAINERS


def every_of(combine: Combine | None) -> int | None:
    """Return how many frames become one by counting; None if none do, or a run says which."""
    return combine.of.every if combine is not None and isinstance(combine.of, Every) else None


def place_of(name: str, number: int, total: int, every: int) -> dict[str, Any]:
    """Return the fields of a request for frame `number` of `total`, counted from 0; `name` begins the group's id.

    >>> place_of("scan", 7, 8, 3)
    {'group': 'scan/2', 'member': 1, 'members': 2}
    """
    group = number // every
    return {"group": f"{name}/{group}", "member": number % every, "members": min(every, total - group * every)}


def grouped(requests: Sequence[Mapping[str, Any]], recipe: Recipe, name: str) -> list[dict[str, Any]]:
    """Return the requests of a call with their places in groups; `recipe` is for those without one.

    Only plain names are counted: not requests of a run, or with a key, which may come again in another call.
    """
    counted: dict[int, list[int]] = {}
    everies = [_every_in(request, recipe) for request in requests]
    for index, every in enumerate(everies):
        if every is not None:
            counted.setdefault(every, []).append(index)
    answer = [dict(request) for request in requests]
    for every, indices in counted.items():
        ordered = sorted(indices, key=lambda index: natural_key(str(requests[index]["source"])))
        for number, index in enumerate(ordered):
            answer[index] |= place_of(f"{name}/{every}", number, len(ordered), every)
    return answer


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
    if every_of(combine) is None:
        return (
            "combine needs the documents of a run, which say what belongs together, or a group and a member in the "
            'request; without them, use "of": {"every": n}'
        )
    counted = is_container(request.source) and request.frame is None
    return (
        ""
        if counted
        else (
            "it needs a group and a member: only AddFiles, AddFolder, and a Submit without run, key and frame, count "
            "frames by themselves"
        )
    )


def in_natural_order(paths: Iterable[str]) -> list[str]:
    """Return paths sorted by the numbers in their names, each once."""
    return sorted(dict.fromkeys(paths), key=natural_key)
