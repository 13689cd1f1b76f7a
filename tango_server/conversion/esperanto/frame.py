"""Write an ESPERANTO file from a turned image and the values of its frame."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tango_server.conversion.errors import ExperimentUnfitError, UnsupportedImageError
from tango_server.conversion.esperanto.codec import encode
from tango_server.conversion.esperanto.experiment import Experiment, experiment_of
from tango_server.conversion.esperanto.header import EsperantoHeader, HeaderError
from tango_server.conversion.esperanto.mask import mask_of, read_mask
from tango_server.conversion.esperanto.padding import FILL, FrameSizeError, margin, padded_side, square
from tango_server.conversion.files.atomic_write import Write, write_parts
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.frame_header import FrameHeader
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.image.transform import OutputImage
from tango_server.messages import PixelCounts
from tango_server.recipe.esperanto import Esperanto


@dataclass(frozen=True, slots=True)
class EsperantoFrame:
    """One frame to be written as an ESPERANTO file.

    Parameters
    ----------
    source: the raw frame
    wanted: the recipe's part for the header
    fields: its run, seq_num and metadata
    stated: what the file and its sidecar state
    turned: the orientation of the image relative to the raw frame of `shape` (rows, columns)
    taken: time of the acquisition in TIFF's form
    history: returns the provenance, of a corrected frame with its `pixels`
    roots: the folders that may be read
    experiment: the values of the header, by default those of this frame

    """

    source: Path
    wanted: Esperanto
    fields: Mapping[str, object]
    stated: FrameHeader
    turned: Orientation
    shape: tuple[int, int]
    taken: str
    history: Callable[..., str]
    roots: Roots
    experiment: Experiment | None = None

    @property
    def side(self) -> int:
        """Rows and columns of the ESPERANTO frame.

        Raises
        ------
        UnsupportedImageError
            if the raw frame is too large for CrysAlis.

        """
        try:
            return padded_side(self.shape)
        except FrameSizeError as error:
            raise UnsupportedImageError(self.source, str(error), "Bin it first, or convert it to TIFF.") from error

    def header(self, pixels: PixelCounts | None = None) -> EsperantoHeader:
        """Return the header; `pixels` are the counts of a corrected frame.

        Raises
        ------
        ExperimentError
            if a value is missing or wrong.

        """
        wanted, side = self.wanted, self.side
        found = self.experiment or experiment_of(self.source, wanted, self.fields, self.stated, self.turned)
        x, y = self.turned.point(*found.beam_center, self.shape)
        above, left = margin(self.turned.shape(self.shape))
        return EsperantoHeader(
            side=side,
            encoding=wanted.encoding,
            exposure=found.exposure,
            monitor=found.monitor,
            pixel_size=found.pixel_size,
            timestamp=_iso(self.taken),
            start=found.start,
            end=found.end,
            origin=(x + left, y + above),
            alpha=wanted.alpha,
            beta=wanted.beta,
            distance=found.distance,
            wavelength=found.wavelength,
            history=self.history() if pixels is None else self.history(pixels=pixels),
        )

    def writer(self, turning: OutputImage) -> Write:
        """Return the function that writes the turned int32 image into an open file.

        It needs memory for the padded frame, and with AGI_BITFIELD for the encoded one.

        Raises
        ------
        ExperimentError
            as `header` does, and if the mask does not fit.
        UnsupportedImageError
            if the raw frame is too large for CrysAlis.

        """
        self._head()  # a missing value is noticed before the work
        whole, inner = square(turning.shape)
        row = 0
        for block in turning.blocks():
            inner[row : row + len(block)] = block
            row += len(block)
        mask = mask_of(self.wanted, self.fields)
        if mask is not None and not turning.is_corrected:
            marked = read_mask(mask, self.source, self.shape, self.roots)
            inner[self.turned.apply(marked)] = FILL
        pixels = encode(whole) if self.wanted.encoding == "AGI_BITFIELD" else whole.astype("<i4", copy=False)
        return write_parts([self._head(turning.counts() if turning.is_corrected else None), pixels])

    def _head(self, counts: PixelCounts | None = None) -> bytes:
        header = self.header(counts)
        try:
            return header.to_bytes()
        except HeaderError as error:
            raise ExperimentUnfitError(self.source, str(error), "Correct the value.") from error


def _iso(taken: str) -> str:
    """Return an instant in ISO 8601 format.

    >>> _iso("2026:11:27 01:02:03")
    '2026-11-27T01:02:03'
    """
    date, _, clock = taken.partition(" ")
    return f"{date.replace(':', '-')}T{clock}"
