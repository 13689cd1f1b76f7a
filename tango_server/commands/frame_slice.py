"""The indices of frames in a file, as in `--frames 0:100:2`."""

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _Slices = click.ParamType[slice]
else:
    _Slices = click.ParamType

_PARTS = re.compile(r"(-?\d{1,9})|(-?\d{1,9})?:(-?\d{1,9})?(?::([1-9]\d{0,8})?)?")


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
