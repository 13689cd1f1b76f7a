"""Strings in which a detector tells the file that it wrote, beside the name that its documents predict.

The string is trusted, since a program that finds a name taken writes to another one. It is the last file only, so it
stands for one frame. A detector PC may call the folder otherwise; then only the name is trusted.
"""

import posixpath
import re
from collections.abc import Collection, Container, Mapping, Sequence
from typing import Any

from petif_bluesky.documents.uris import beside, is_tiff, is_windows, name_of, sameness

_NUMBERED_AGAIN = r"[-_]\d+"


def tiffs_told(data: Mapping[str, Any], name_keys: Sequence[str]) -> dict[str, str]:
    """Return the TIFFs that an event names, by key."""
    values = {key: data.get(key) for key in name_keys}
    return {key: value for key, value in values.items() if isinstance(value, str) and is_tiff(value)}


def trusted(predicted: str, told: Collection[str], taken: Container[str], *, alone: bool) -> str:
    """Return the file of a frame: one that was told, or the predicted one.

    Parameters
    ----------
    predicted: by the documents
    told: the files that the event names for this detector
    taken: files (`sameness`) that are taken already for other frames: a name among them was read too early
    alone: whether this is the only image of the detector in the event

    """
    candidates = [_as_seen_by(predicted, path) for path in told]
    same = sameness(predicted)
    if same in map(sameness, candidates):
        return predicted
    if not (alone and len(candidates) == 1):
        stem, extension = posixpath.splitext(name_of(predicted))
        again = re.compile(re.escape(stem) + _NUMBERED_AGAIN + re.escape(extension))
        candidates = [path for path in candidates if again.fullmatch(name_of(path))]
    fresh = [path for path in candidates if sameness(path) not in taken]
    return fresh[0] if len(fresh) == 1 else predicted


def _as_seen_by(predicted: str, told: str) -> str:
    """Return a path that was told; in the predicted folder if one is of Windows and the other is not."""
    if is_windows(told) != is_windows(predicted):
        return beside(predicted, name_of(told))
    return told
