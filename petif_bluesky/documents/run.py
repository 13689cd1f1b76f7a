"""The state of one run, from its first document to its last."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from petif_bluesky.documents.assets import Assets
from petif_bluesky.documents.darks import Dark, wants_run_dark
from petif_bluesky.documents.descriptors import Descriptor, descriptor_of
from petif_bluesky.documents.errors import Attempts, UnknownRecipeError
from petif_bluesky.documents.file_names import FileNames, reported_images
from petif_bluesky.documents.file_series import FramePlace
from petif_bluesky.documents.frame import Frame, InEvent
from petif_bluesky.documents.groups import combine_of
from petif_bluesky.documents.points import Point, Points
from petif_bluesky.documents.positions import NoPositionError, positions_in
from petif_bluesky.documents.rotation_angles import RotationAngles, esperanto_of
from petif_bluesky.documents.run_darks import RunDarks
from petif_bluesky.documents.run_metadata import RunMetadata
from petif_bluesky.documents.selection import FrameSelection, is_own_stream
from petif_bluesky.maps.grid import Grid, NoGridError
from petif_bluesky.maps.points import Spot, grid_of_run
from petif_bluesky.metadata import MetadataSelection
from tango_server.conversion.errors import UnfitPathError
from tango_server.recipe import Recipe
from tango_server.recipe.combine import By, Combine

Document = Mapping[str, Any]

_BASELINE = "baseline"
_MOST_NOTES = 1000

_Files = tuple[str, tuple[int, int] | None, list[FramePlace]]
"""Data key, shape of a frame, and where the frames are."""


class _Held(NamedTuple):
    """A frame waiting for readings after the end of its exposure (s)."""

    frame: Frame
    end: float | None
    exposure: float


class _Image(NamedTuple):
    """An image of a point: how many frames it has that were not converted yet, and the shape of one."""

    point: Point
    data_key: str
    frames: int
    shape: tuple[int, int] | None


class Run:
    """Processes the documents of one run, and passes on each of its files once, as a frame.

    With an ESPERANTO recipe, frames also wait for the readings from which their angles are interpolated, at most until
    the run stops. With a recipe that wants the dark of the run, dark images are not frames to convert. With one that
    combines frames by positions, or makes a map, stream datums wait for their event, which has these.

    Parameters
    ----------
    uid: uid of the run
    frames, metadata: which frames and metadata are selected
    assets: shared by all runs
    give: called with each frame
    give_dark: called with each dark, before the frames of later documents
    next_order: returns the number of the next document among those of all runs
    note: called with what is not converted and why, once per text
    attempts: collects errors

    """

    def __init__(
        self,
        uid: str,
        frames: FrameSelection,
        metadata: MetadataSelection,
        assets: Assets,
        *,
        give: Callable[[Frame], None],
        give_dark: Callable[[Dark], object],
        next_order: Callable[[], int],
        note: Callable[[str], None],
        attempts: Attempts,
    ) -> None:
        self.uid = uid
        self.descriptors: dict[str, Descriptor] = {}
        self._begun = False
        self._recipe: Any = None
        self._selection = frames
        self._metadata = RunMetadata(metadata)
        self._angles: RotationAngles | None = None
        self._points = Points(uid, assets, self._note_once)
        self._darks = RunDarks(uid, frames, give_dark)
        self._wants_dark = False
        self._combine: Combine | None = None
        self._grid: Grid | None = None
        self._next_order = next_order
        self._names = FileNames()
        self._held: list[_Held] = []
        self._give = give
        self._note = note
        self._notes: set[str] = set()
        self._attempts = attempts

    def begin(self, start: Document, recipe: Any) -> None:
        """Process the start document; `recipe` is the one in it."""
        if self._begun:
            return
        self._begun, self._recipe = True, recipe
        esperanto = esperanto_of(recipe)
        self._angles = RotationAngles(esperanto) if esperanto is not None else None
        self._combine = combine_of(recipe)
        self._grid = self._grid_of(start, recipe)
        self._points.patient = esperanto is not None or bool(self._grouping_keys) or self._grid is not None
        self._wants_dark = wants_run_dark(recipe)
        self._darks.begin(start)
        self._metadata.begin(start, esperanto)

    def describe(self, document: Document) -> Descriptor:
        """Process a descriptor."""
        descriptor = descriptor_of(document, self._selection)
        self.descriptors[descriptor.uid] = descriptor
        with self._attempts:  # better frames without metadata than none
            self._metadata.describe(document)
            self._darks.describe(document, self._points.order)
        return descriptor

    def may_use(self, data_key: str) -> bool:
        """Return whether a data key may have selected frames, in this stream or a later one; converted images never."""
        described = [each for each in self.descriptors.values() if data_key in each.data_keys]
        return not described or not all(is_own_stream(each.stream) for each in described)

    @property
    def waiting(self) -> int:
        """Number of frames that wait for further documents."""
        return self._points.waiting + len(self._held)

    def event(self, descriptor: Descriptor, event: Document) -> None:
        """Process an event."""
        self._points.order = self._next_order()
        if descriptor.stream == _BASELINE:
            with self._attempts:
                self._metadata.read_baseline(event)
        if self._angles is not None:
            with self._attempts:
                if self._angles.read(event):
                    self._release_held(self._angles)
        points = self._points.event(descriptor, event)
        for point in self._points.incomplete(descriptor, event["seq_num"]):
            self._darks.add_without_files(point)
        self._convert(points)

    def stream_datum(self, descriptor: Descriptor, resource_uid: str, indices: range, seq_num: int) -> None:
        """Process a stream datum; `seq_num` is that of the first index."""
        self._points.order = self._next_order()
        self._convert(self._points.stream_datum(descriptor, resource_uid, indices, seq_num))

    def datum_came(self, datum_id: str) -> None:
        """A datum was announced."""
        self._convert(self._points.datum_came(datum_id))

    def resource_came(self, resource_uid: str) -> None:
        """A resource or a stream resource was announced."""
        self._convert(self._points.resource_came(resource_uid))

    def release(self) -> None:
        """Pass on the frames that wait for readings only: the run is about to stop."""
        self._convert(self._points.release())
        if self._angles is not None:
            self._release_held(self._angles, at_last=True)

    def stop(self) -> None:
        """Pass on the frames that are still waiting, as far as their files are known."""
        self._convert(self._points.stop())
        if self._angles is not None:
            self._release_held(self._angles, at_last=True)

    def _convert(self, points: Iterable[Point]) -> None:
        for point in points:
            with self._attempts:
                files = list(self._files(point))
                if not files:
                    self._darks.add_without_files(point)
                for image, place, number in self._new(point, files):
                    self._found(image, place, number)

    def _new(self, point: Point, files: list[_Files]) -> list[tuple[_Image, FramePlace, int]]:
        """Return the frames of a point that are to be converted and were not yet, with their numbers in the event."""
        seen: Counter[str] = Counter()
        new: list[tuple[str, tuple[int, int] | None, FramePlace, int]] = []
        for data_key, shape, places in files:
            if self._is_to_convert(point, data_key, shape, places):
                numbered = enumerate(places, start=seen[data_key])
                new += [(data_key, shape, place, number) for number, place in numbered if self._names.take(place)]
                seen[data_key] += len(places)
        counts = Counter(data_key for data_key, *_ in new)
        return [(_Image(point, key, counts[key], shape), place, number) for key, shape, place, number in new]

    def _is_to_convert(
        self, point: Point, data_key: str, shape: tuple[int, int] | None, places: list[FramePlace]
    ) -> bool:
        """Return whether images are frames to convert; pass on the dark ones as a dark."""
        descriptor, detector = point.descriptor, point.detector
        if not self._darks.is_dark(descriptor, detector, data_key):
            return True
        self._darks.add(point, data_key, shape, places)
        return not self._wants_dark and self._darks.converts(descriptor, detector, data_key)

    def _files(self, point: Point) -> Iterator[_Files]:
        """Yield data key, shape and places of each image of a point, with file names as reported in its event."""
        reported = reported_images(point.event["data"], point.detector.name_keys) if point.event else {}
        images, references, passed_over = point.detector.images, point.references, self._points.passed_over
        if not references and not any(image.in_stream and image.name not in passed_over for image in images):
            yield from ((key, None, self._here([FramePlace(path)])) for key, path in reported.items())
        names = [path for path, _ in self._here(map(FramePlace, reported.values()))]
        for reference in references:
            places, data_key = self._here(reference.places()), reference.image.name
            if len(places) == 1 and names and places[0].frame is None:
                others = {image.name for image in images} - passed_over - {data_key}
                alone = len(references) == 1 and not others
                places = [FramePlace(self._names.true_name(places[0].path, names, alone=alone))]
            yield data_key, reference.image.shape, places

    def _found(self, image: _Image, place: FramePlace, number: int) -> None:
        """Pass on a frame, or hold it until its angles are known."""
        (point, data_key, _, shape), (path, index) = image, place
        if not self._begun:
            raise UnknownRecipeError(
                f"{path}: cannot convert this frame of run {self.uid}: the start document, which has the recipe, was "
                "not seen. Subscribe before the run starts."
            )
        descriptor, seq_num, event = point.descriptor, point.seq_num, point.event
        metadata: dict[str, Any] = {}
        with self._attempts:  # better a frame without metadata than none
            metadata = self._metadata.of(
                descriptor.uid, data_key, seq_num=seq_num, number=number, shape=shape, event=event
            )
        light = self._darks.light(point, data_key, shape) if self._wants_dark else None
        in_event = self._in_event(image, number) if self._combine else None
        frame = Frame(
            path, seq_num, self.uid, descriptor.stream, data_key, self._recipe, metadata, light, frame=index,
            in_event=in_event, spot=self._spot(self._grid, event) if self._grid else None,
        )  # fmt: skip
        if self._angles is None:
            self._give(frame)
            return
        end = None
        with self._attempts:
            end = float(event.get("timestamps", {}).get(data_key, event["time"])) if event is not None else None
        self._give_with(self._angles, _Held(frame, end, metadata.get("exposure_time", 0.0)))

    @property
    def _grouping_keys(self) -> tuple[str, ...]:
        """The keys by whose values frames are combined."""
        of = self._combine.of if self._combine else None
        return tuple(key for key, _ in of.by) if isinstance(of, By) else ()

    def _in_event(self, image: _Image, number: int) -> InEvent:
        """Return what determines the group of a frame."""
        event, values, problem = image.point.event, tuple[float, ...](), ""
        if event is not None and self._grouping_keys:
            try:
                values = positions_in(event["data"], self._grouping_keys)
            except NoPositionError as error:
                problem = str(error)
        return InEvent(number, image.frames, str(event.get("uid", "")) if event else "", values, problem)

    def _grid_of(self, start: Document, recipe: Any) -> Grid | None:
        """Return the grid of the run, None if there is no map to make."""
        if not isinstance(recipe, Mapping) or not (self._grouping_keys or recipe.get("map") is not None):
            return None
        try:
            return grid_of_run(start, Recipe.model_validate(recipe))
        except NoGridError as error:
            self._note_once(f"{error} Its frames are converted, without placeholders.")
        except ValueError:  # the server reports the error for each frame
            pass
        return None

    def _spot(self, grid: Grid, event: Document | None) -> Spot:
        """Return where a frame was taken."""
        try:
            return Spot(grid, positions_in({} if event is None else event["data"], grid.keys))
        except NoPositionError as error:
            return Spot(grid, problem=str(error))

    def _release_held(self, angles: RotationAngles, *, at_last: bool = False) -> None:
        held, self._held = self._held, []
        for each in held:
            self._give_with(angles, each, at_last=at_last)

    def _give_with(self, angles: RotationAngles, held: _Held, *, at_last: bool = False) -> None:
        """Pass on a frame with its angles; hold it while some are missing, unless the run has ended."""
        known, complete = angles.at(held.end, held.exposure)
        if complete or at_last:
            self._give(replace(held.frame, metadata={**held.frame.metadata, **known}))
        else:
            self._held.append(held)

    def _here(self, places: Iterable[FramePlace]) -> list[FramePlace]:
        """Return the places on the conversion host for places in documents."""
        here = []
        for path, index in places:
            try:
                here.append(FramePlace(self._selection.here(path), index))
            except UnfitPathError as error:
                self._note_once(f"frame not converted: {error}")
        return here

    def _note_once(self, what: str) -> None:
        if what not in self._notes and len(self._notes) < _MOST_NOTES:
            self._notes.add(what)
            self._note(f"run {self.uid}: {what}")
