"""Which metadata to send with a frame."""

from dataclasses import dataclass

START_KEYS = (
    "scan_id", "plan_name", "sample_name", "sample_id", "sample_composition", "operator", "proposal_id", "beamline_id",
    "wavelength", "incident_wavelength", "energy", "incident_energy", "detector_distance", "beam_center_x",
    "beam_center_y", "pixel_size", "x_pixel_size", "y_pixel_size",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MetadataSelection:
    """Which document keys to send with a frame, as name patterns (`motor_*`).

    Parameters
    ----------
    start: keys of the start document; None for `START_KEYS` and those named by the recipe for ESPERANTO headers
    configuration: configuration keys of any object; None for all keys of the object that took the image
    baseline, event: keys of these readings; None for all

    """

    start: tuple[str, ...] | None = None
    configuration: tuple[str, ...] | None = None
    baseline: tuple[str, ...] | None = None
    event: tuple[str, ...] | None = None
