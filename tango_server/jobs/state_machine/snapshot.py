"""The numbers of the service at one instant."""

from dataclasses import dataclass, field

from tango_server.messages import CorrectionsInUse


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The numbers of the service at one instant. Times in s, sizes in bytes.

    `groups` and `groups_failed` count outputs of several frames, which are in none of the counts of frames.
    `overexposed` counts frames with overexposed pixels. `corrections` are the masters in use. `scanned` is the number
    of files found so far in the folder being scanned. `alarms` and `warning` are messages.
    """

    processed: int = 0
    converted: int = 0
    skipped: int = 0
    placeholders: int = 0
    failed: int = 0
    grouped: int = 0
    superseded: int = 0
    groups: int = 0
    groups_failed: int = 0
    overexposed: int = 0
    queue_length: int = 0
    running: int = 0
    paused: bool = False
    conversion_time_total: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    frames_per_second: float = 0.0
    bytes_per_second: float = 0.0
    latency_median: float = 0.0
    latency_p95: float = 0.0
    last_source: str = ""
    last_output: str = ""
    last_error: str = ""
    failed_files: tuple[str, ...] = field(default=())
    unacknowledged: int = 0
    corrections: tuple[CorrectionsInUse, ...] = ()
    scanned: int = 0
    free_space: int | None = None
    alarms: tuple[str, ...] = ()
    warning: str = ""

    @property
    def conversion_time_mean(self) -> float:
        """Mean conversion time of frames and groups in s, 0 if none was converted."""
        outputs = self.converted + self.groups
        return self.conversion_time_total / outputs if outputs else 0.0
