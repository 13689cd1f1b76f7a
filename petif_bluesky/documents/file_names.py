"""File names of a run, each used once: predicted by the documents, or reported by the detector in a string.

The reported name takes precedence, because a program may write to another file if the name exists. It is that of the
last file, so it applies to one frame. The detector PC may have another path for the folder; then only the name is used.
"""

import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from petif_bluesky.documents.file_series import FramePlace
from petif_bluesky.documents.text_set import TextSet
from petif_bluesky.documents.uris import beside, is_other_image, is_tiff, is_windows, name_of, normalized
from tango_server.text import split_data_set

_NUMBERED_AGAIN = r"[-_]\d+"


def reported_images(data: Mapping[str, Any], name_keys: Sequence[str]) -> dict[str, str]:
    """Return the TIFF files named in an event, by key; if there are none, its CBF, EDF and MarCCD files."""
    values = {key: data[key] for key in name_keys if isinstance(data.get(key), str)}
    tiffs = {key: value for key, value in values.items() if is_tiff(value)}
    return tiffs or {key: value for key, value in values.items() if is_other_image(value)}


class FileNames:
    """The file names of one run. A dark frame in several events, or a file named by two keys, is one frame."""

    def __init__(self) -> None:
        self._taken = TextSet()
        self._replaced = TextSet()
        """Predicted files for which the detector reported others."""

    def take(self, place: FramePlace) -> bool:
        """Mark a file, or a frame in it, as used; return False if it already was."""
        if place.frame is None:  # a file of its own, whose folder may contain "::"
            return self._taken.add(normalized(place.path))
        file, data_set = split_data_set(place.path)
        return self._taken.add(f"{normalized(file)}::{data_set}#{place.frame}")

    def true_name(self, predicted: str, reported: Collection[str], *, alone: bool) -> str:
        """Return the file of a frame: a reported one, or else the predicted one.

        Parameters
        ----------
        predicted: the file predicted by the documents
        reported: the files that the event names for this detector
        alone: whether this is the only image of the detector

        """
        is_tiff_expected = not is_other_image(predicted)
        candidates = [_as_seen_by(predicted, path) for path in reported if is_other_image(path) != is_tiff_expected]
        same = normalized(predicted)
        if same in map(normalized, candidates):
            return predicted
        if not (alone and len(candidates) == 1):
            stem, extension = posixpath.splitext(name_of(predicted))
            again = re.compile(re.escape(stem) + _NUMBERED_AGAIN + re.escape(extension))
            candidates = [path for path in candidates if again.fullmatch(name_of(path))]
        if same not in self._taken and same not in self._replaced:  # else the frame appears again under its name
            # A name already used for another frame was read too early.
            candidates = [path for path in candidates if normalized(path) not in self._taken]
        if len(candidates) != 1:
            return predicted
        self._replaced.add(same)
        return candidates[0]


def _as_seen_by(predicted: str, reported: str) -> str:
    """Return a reported path; in the predicted folder if only one of the two is a Windows path."""
    if is_windows(reported) != is_windows(predicted):
        return beside(predicted, name_of(reported))
    return reported
