"""The masters that are in use now, for each detector."""

from collections import OrderedDict

from tango_server.jobs.job import Job
from tango_server.messages import CorrectionsInUse, FrameReport, Master

_MOST = 16
_FORGOTTEN_AFTER = 3600.0  # s without a frame, while others come: the folder of an earlier sample, say
_DETECTOR = "data_key"


class CorrectionsLog:
    """Remembers what corrected the newest frame of each detector."""

    def __init__(self) -> None:
        self._newest: OrderedDict[str, CorrectionsInUse] = OrderedDict()

    @property
    def in_use(self) -> tuple[CorrectionsInUse, ...]:
        """One for each detector whose newest frame was corrected, latest last."""
        return tuple(self._newest.values())

    def add(self, job: Job, report: FrameReport) -> None:
        """Note a converted frame."""
        detector = _detector_of(job)
        self._newest.pop(detector, None)
        if not report.masters:
            return
        others = [master for master in report.masters if master.kind != "dark"]
        darks = [master for master in report.masters if master.kind == "dark"]
        corrections = job.recipe.corrections
        self._newest[detector] = CorrectionsInUse(
            detector=detector,
            finished=report.finished,
            masters=(*sorted(darks, key=_age_key)[:1], *others),
            darks=len(darks),
            dark_max_age=None if corrections is None else corrections.dark_max_age,
            masked=report.pixels.masked,
            overexposed=report.pixels.overexposed,
        )
        self._forget_old(report.finished)

    def _forget_old(self, now: float) -> None:
        for detector, one in list(self._newest.items()):
            if len(self._newest) > _MOST or one.finished < now - _FORGOTTEN_AFTER:
                del self._newest[detector]


def _detector_of(job: Job) -> str:
    named = job.request.metadata.get(_DETECTOR)
    return named if isinstance(named, str) and named else str(job.source.parent)


def _age_key(master: Master) -> float:
    return master.modified or 0.0
