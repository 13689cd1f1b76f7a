"""The names of a run's files, each taken once: predicted by the documents, or reported by the detector in a string.

The string is trusted, since a program that finds a name taken writes to another one. It is the last file only, so it
stands for one frame. A detector PC may call the folder otherwise; then only the name is trusted.
"""

import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from petif_bluesky.documents.uris import beside, is_tiff, is_windows, name_of, sameness
from petif_bluesky.text_set import TextSet

_NUMBERED_AGAIN = r"[-_]\d+"


def reported_tiffs(data: Mapping[str, Any], name_keys: Sequence[str]) -> dict[str, str]:
    """Return the TIFFs that an event names, by key."""
    values = {key: data.get(key) for key in name_keys}
    return {key: value for key, value in values.items() if isinstance(value, str) and is_tiff(value)}


class FileNames:
    """Of one run. A dark frame that is shown again, or a file that two keys name, is one frame."""

    def __init__(self) -> None:
        self._taken = TextSet()
        self._replaced = TextSet()
        """Predicted files in whose place others were reported."""

    def take(self, path: str) -> bool:
        """Take a file; return False if it was taken before."""
        return self._taken.add(sameness(path))

    def true_name(self, predicted: str, reported: Collection[str], *, alone: bool) -> str:
        """Return the file of a frame: one that was reported, or the predicted one.

        Parameters
        ----------
        predicted: by the documents
        reported: the files that the event names for this detector
        alone: whether this is the only image of the detector

        """
        candidates = [_as_seen_by(predicted, path) for path in reported]
        same = sameness(predicted)
        if same in map(sameness, candidates):
            return predicted
        if not (alone and len(candidates) == 1):
            stem, extension = posixpath.splitext(name_of(predicted))
            again = re.compile(re.escape(stem) + _NUMBERED_AGAIN + re.escape(extension))
            candidates = [path for path in candidates if again.fullmatch(name_of(path))]
        if same not in self._taken and same not in self._replaced:  # else the frame is shown again, under its name
            # A name that is taken for another frame was read too early.
            candidates = [path for path in candidates if sameness(path) not in self._taken]
        if len(candidates) != 1:
            return predicted
        self._replaced.add(same)
        return candidates[0]


def _as_seen_by(predicted: str, reported: str) -> str:
    """Return a reported path; in the predicted folder if one is of Windows and the other is not."""
    if is_windows(reported) != is_windows(predicted):
        return beside(predicted, name_of(reported))
    return reported
