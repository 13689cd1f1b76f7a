"""A frame of a run, with everything that its request to the server contains."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from petif_bluesky.documents.darks import FoundDark, Light


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
class Frame:
    """One frame of a run.

    `path`: as given by the detector, after the selection's path map; with `::/data/set` if the documents name one.
    `frame`: its index in a file of several frames, None for a file of its own. `stream`, `data_key`: None and "" for
    files given by name. `recipe`: from the start document, not validated, since the server refuses each frame with an
    invalid one. `metadata`: JSON-compatible and within the server's size limit. `light`: what determines its dark, None
    if the recipe does not want that of the run. `dark`: the dark, if it was looked for.
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

    def request(self) -> dict[str, Any]:
        """Return the fields of a `FrameRequest` as a dict; the server validates it, and building the model is slow."""
        recipe, metadata = self.recipe, self.metadata
        if self.dark is not None:
            recipe, metadata = self.dark.applied(recipe, metadata)
        of_file = {} if self.frame is None else {"frame": self.frame}  # old servers refuse fields that they don't know
        return {
            "source": self.path,
            "recipe": recipe,
            "key": frame_key(self.run_uid, self.path, self.data_key, self.frame),
            "run_uid": self.run_uid,
            "stream": self.stream,
            "seq_num": self.seq_num,
            "metadata": metadata,
            **of_file,
        }
