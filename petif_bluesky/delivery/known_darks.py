"""The file with the darks that a session knows, so that a restart forgets none."""

import contextlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from petif_bluesky.documents.darks import Dark
from petif_bluesky.documents.detector_settings import DetectorSettings

_log = logging.getLogger(__name__)

_KEPT_PER_DETECTOR = 50
_VERSION = 1


class KnownDarks:
    """A small JSON file beside the spool. It is replaced as a whole, so that it is never half written.

    An unreadable file counts as empty, and a file that cannot be written is reported once: neither ever stops a run.
    """

    def __init__(self, spool: Path) -> None:
        self.path = spool.with_name(f"{spool.stem}.darks.json")
        self._warned = False

    def read(self) -> list[Dark]:
        """Return the darks in the file; they are those of earlier sessions."""
        try:
            content = json.loads(self.path.read_bytes())
            return [_dark(fields) for fields in content["darks"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s: cannot read the known darks: %s. They are taken from new runs only.", self.path, error)
            return []

    def write(self, darks: Iterable[Dark]) -> None:
        """Write the newest darks of each detector."""
        by_detector: dict[str, list[Dark]] = defaultdict(list)
        for dark in sorted(darks, key=lambda dark: dark.time):
            by_detector[dark.settings.detector].append(dark)
        kept = [_fields(dark) for darks in by_detector.values() for dark in darks[-_KEPT_PER_DETECTOR:]]
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps({"version": _VERSION, "darks": kept}), encoding="utf-8")
            temporary.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not self._warned:
                _log.warning(
                    "%s: cannot write the known darks: %s. A new session will not know them.", self.path, error
                )
            self._warned = True
        else:
            self._warned = False


def _fields(dark: Dark) -> dict[str, Any]:
    settings = dark.settings
    return {
        "run_uid": dark.run_uid,
        "detector": settings.detector,
        "data_key": settings.data_key,
        "shape": settings.shape,
        "exposure_time": settings.exposure_time,
        "gains": dict(settings.gains),
        "paths": dark.paths,
        "time": dark.time,
        "of_dark_run": dark.of_dark_run,
    }


def _dark(fields: dict[str, Any]) -> Dark:
    shape = fields["shape"]
    settings = DetectorSettings(
        str(fields["detector"]),
        str(fields["data_key"]),
        None if shape is None else (int(shape[0]), int(shape[1])),
        None if fields["exposure_time"] is None else float(fields["exposure_time"]),
        dict(fields["gains"]),
    )
    paths = tuple(map(str, fields["paths"]))
    return Dark(str(fields["run_uid"]), settings, paths, float(fields["time"]), of_dark_run=bool(fields["of_dark_run"]))
