"""Where the frames of a batch go, and what their headers say, before any of them is converted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tango_server.conversion.errors import ConversionError, SourceError
from tango_server.conversion.esperanto.angle_table import AngleTable, AngleTableError, fields_of
from tango_server.conversion.esperanto.experiment import Experiment, experiment_of
from tango_server.conversion.esperanto.scan_numbers import numbers_in_scans, uncounted_names
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.naming import counted_by
from tango_server.conversion.files.roots import output_path
from tango_server.conversion.formats import open_frame
from tango_server.conversion.frame_header import NO_HEADER, FrameHeader
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.sidecar import read_sidecar
from tango_server.jobs.containers import may_kill_its_reader
from tango_server.jobs.output_check import OutputCheck
from tango_server.recipe import NewFile, Recipe

SEQ_NUM = "seq_num"
"""The field with the number of a frame in its scan."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One frame with its output, or the `problem` if there is none; `skip` says why it is skipped.

    `fields` are available to its name and header; `experiment` goes into its header.
    """

    source: FrameLocation
    output: Path | None
    problem: str = ""
    skip: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    experiment: Experiment | None = None


@dataclass(frozen=True, slots=True)
class Counting:
    """How the frames of an ESPERANTO scan are counted.

    `frame_number` selects the number in a file name, see `counted_by`; None is the last one. `angles` are those of the
    frames, where they do not depend on this number.
    """

    angles: AngleTable | None = None
    frame_number: int | None = None

    def named(self, frame: FrameLocation, recipe: Recipe) -> FrameLocation:
        """Return a frame as its output is named."""
        if self.frame_number is None or recipe.esperanto is None or frame.index is not None:
            return frame
        return replace(frame, file=counted_by(frame.file, self.frame_number))


BY_NAME = Counting()


def plan(
    sources: Iterable[FrameLocation | Path], recipe: Recipe, *, newer_only: bool = False, counting: Counting = BY_NAME
) -> list[Planned]:
    """Return the output of each source, and the contents of its header; `newer_only` skips those that are current.

    Two sources with the same output are both refused, and so are the sources that `described` refuses.
    """
    frames = [source if isinstance(source, FrameLocation) else FrameLocation(source) for source in sources]
    newer = OutputCheck(recipe) if newer_only else None
    planned = [_placed(item, recipe, counting, newer) for item in described(frames, recipe, counting)]
    takers: dict[Path, list[FrameLocation]] = {}
    for item in planned:
        if item.output is not None:
            takers.setdefault(item.output, []).append(item.source)
    return [_without_clash(item, takers) for item in planned]


def described(frames: Sequence[FrameLocation], recipe: Recipe, counting: Counting) -> list[Planned]:
    """Return the frames with the fields and contents of their headers, without outputs.

    The first of several frames in a file has the number 1. Sources whose angles depend on a number that does not look
    like a frame number are refused.
    """
    counted = {frame.file: counting.named(frame, recipe).file for frame in frames if frame.index is None}
    numbers: dict[Path, int] = {}
    uncounted: dict[Path, str] = {}
    if recipe.esperanto is not None:
        numbers = numbers_in_scans(counted.values())
        if any(circle.step is not None for circle in recipe.esperanto.circles.values()):
            uncounted = uncounted_names(counted, gaps_are_meant=counting.frame_number is not None)
    found = []
    of_file = Counter(frame.file for frame in frames)
    for frame in frames:
        number = numbers.get(counted[frame.file], 1) if frame.index is None else frame.index + 1
        problem = uncounted.get(frame.file, "") if frame.index is None else ""
        if counting.angles is not None and of_file[frame.file] > 1:
            problem = (
                f"{frame}: cannot tell its angles: the table has one line for each file, and this file has several "
                "frames. Use --omega-start and --omega-step."
            )
        found.append(_described(frame, recipe, number, counting.angles, problem or _absence(frame.file)))
    return found


def clash(source: FrameLocation, output: Path, other: FrameLocation) -> str:
    """Return why a frame, or a group by its first frame, cannot have an output that is that of another one as well."""
    return (
        f"{source}: cannot convert: its output {output} would also be the output of {other}. Use a name template that "
        "distinguishes them, or convert the folders one by one."
    )


def _absence(source: Path) -> str:
    """Return why a file cannot be found; empty if it is there."""
    try:
        source.lstat()
    except FileNotFoundError:
        return f"{source}: no such file or folder. Check the path."
    except PermissionError:
        return f"{source}: cannot access its folder. Check the permissions."
    return ""


def _described(frame: FrameLocation, recipe: Recipe, number: int, angles: AngleTable | None, problem: str) -> Planned:
    numbered: Mapping[str, object] = {} if recipe.esperanto is None else {SEQ_NUM: number}
    if problem or recipe.esperanto is None:
        return Planned(frame, None, problem=problem, fields=numbered)
    try:
        fields = fields_of(angles, frame.file, number)
        stated = _stated(frame)
        if stated is None:
            return Planned(frame, None, fields=fields)
        experiment = experiment_of(frame.file, recipe.esperanto, fields, stated, Orientation.of(recipe))
    except (ConversionError, AngleTableError) as error:
        return Planned(frame, None, problem=str(error), fields=numbered)
    return Planned(frame, None, fields=fields, experiment=experiment)


def _placed(item: Planned, recipe: Recipe, counting: Counting, newer: OutputCheck | None) -> Planned:
    if item.problem:
        return item
    try:
        output = output_path(counting.named(item.source, recipe), recipe, fields=item.fields)
    except ConversionError as error:
        return Planned(item.source, None, problem=str(error))
    if newer is not None and isinstance(recipe.output, NewFile) and newer.is_current(item.source, output):
        return Planned(item.source, output, skip=f"{output} is newer")
    return replace(item, output=output)


def _stated(frame: FrameLocation) -> FrameHeader | None:
    """Return what the sidecar of a frame or its file states; None if only its conversion may open it."""
    if may_kill_its_reader(frame.file):
        return None
    sidecar = read_sidecar(frame.file)
    if sidecar is not None:
        return sidecar.header
    try:
        with open_frame(frame) as source:
            return source.header
    except SourceError:  # its conversion reports it
        return NO_HEADER


def _without_clash(item: Planned, takers: dict[Path, list[FrameLocation]]) -> Planned:
    others = [source for source in takers.get(item.output, []) if source != item.source] if item.output else []
    if not others or item.output is None:
        return item
    return Planned(item.source, None, problem=clash(item.source, item.output, others[0]))
