"""The corrections that a server has in use, for people."""

from pydantic import TypeAdapter, ValidationError

from tango_server.client.client import ServerSnapshot
from tango_server.messages import CorrectionsInUse, Master
from tango_server.recipe.corrections import KINDS, Kind, split_master

_LIST = TypeAdapter(tuple[CorrectionsInUse, ...])
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0


def corrections_in_use(snapshot: ServerSnapshot) -> tuple[CorrectionsInUse, ...]:
    """Return what corrects the frames of each detector now; nothing from a server that does not report it."""
    try:
        return _LIST.validate_json(snapshot.value("CorrectionsInUse") or "[]")
    except ValidationError:  # of a later version
        return ()


def master_words(found: CorrectionsInUse, kind: Kind) -> str:
    """Return the names of the masters of one kind, and what is known of a dark; empty if there are none."""
    names = [_name(master) for master in found.masters if master.kind == kind]
    if kind != "dark" or not names:
        return ", ".join(names)
    dark = next(master for master in found.masters if master.kind == kind)
    facts = [f"{dark.exposure_time:g} s exposure"] if dark.exposure_time is not None else []
    facts += [f"{duration(age)} old"] if (age := dark_age(found)) is not None else []
    facts += [f"run {dark.run_uid[:8]}"] if dark.run_uid else []
    more = f" and {found.darks - 1} more" if found.darks > 1 else ""
    return f"{names[0]}{more}" + (f" ({', '.join(facts)})" if facts else "")


def in_words(found: CorrectionsInUse) -> str:
    """Return all masters of a detector in one line."""
    return ", ".join(f"{kind} {words}" for kind in KINDS if (words := master_words(found, kind)))


def dark_age(found: CorrectionsInUse) -> float | None:
    """Return how old (s) the dark was when it last corrected a frame, None if unknown."""
    times = [master.modified for master in found.masters if master.kind == "dark" and master.modified is not None]
    return max(found.finished - times[0], 0.0) if times else None


def age_warning(found: CorrectionsInUse) -> str:
    """Return that the dark is older than the recipe allows; empty if it is not."""
    age, limit = dark_age(found), found.dark_max_age
    if age is None or limit is None or age <= limit:
        return ""
    return f"the dark is {duration(age)} old, dark_max_age is {duration(limit)}. Take a new dark."


def duration(seconds: float) -> str:
    """Return a duration in its natural unit.

    >>> duration(40), duration(750), duration(9000), duration(200_000)
    ('40 s', '12 min', '2.5 h', '2.3 days')
    """
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.1f} days"


def _name(master: Master) -> str:
    file, inside = split_master(master.path)
    name = file.replace("\\", "/").rpartition("/")[2]
    return f"{name}::{inside}" if inside else name
