"""The indices of frames in a file, as in `--frames 0:100:2`."""

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _Slices = click.ParamType[slice]
else:
    _Slices = click.ParamType

_MOST = 1_000_000
_PARTS = re.compile(r"(-?\d{1,9})|(-?\d{1,9})?:(-?\d{1,9})?(?::([1-9]\d{0,8})?)?")


def indices_of(chosen: slice | None) -> list[dict[str, int]]:
    """Return the field of a request for each chosen frame; one without it, which means all, if none was chosen.

    Raises
    ------
    click.UsageError
        if the number of frames would have to be known.
    """
    if chosen is None:
        return [{}]
    start, stop = chosen.start or 0, chosen.stop
    if stop is None or start < 0 or stop <= start:
        raise click.UsageError("--frames needs START:STOP with a STOP above START, since the server counts the frames.")
    if stop - start > _MOST:
        raise click.UsageError(f"--frames can name at most {_MOST} frames. Leave it out for all of them.")
    return [{"frame": index} for index in range(start, stop, chosen.step or 1)]


class FrameSlice(_Slices):
    """An index, or START:STOP:STEP as in Python, with a positive step."""

    name = "indices"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> slice:
        """Return the slice.

        >>> [FrameSlice().convert(text, None, None) for text in ("7", "-1", "0:100:2", "5:")]
        [slice(7, 8, None), slice(-1, None, None), slice(0, 100, 2), slice(5, None, None)]
        """
        if isinstance(value, slice):
            return value
        found = _PARTS.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is neither an index nor START:STOP:STEP with a step from 1, as 0:100:2.", param, ctx)
        index, *parts = found.groups()
        if index is not None:
            return slice(int(index), int(index) + 1 or None)
        return slice(*(None if part is None else int(part) for part in parts))
