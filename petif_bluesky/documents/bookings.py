"""What belongs to which converter in a run with several: part of the start document, streams, and frames on a server.

The first converter has the plain names, each further one adds its own name:

>>> first, further = Booking("1f"), Booking("1f", "esperanto")
>>> first.key, first.run_uid, first.stream("converted-2")
('conversion', '1f', 'converted-2')
>>> further.key, further.run_uid, further.stream("converted-2")
('conversion_esperanto', '1f#esperanto', 'converted_esperanto-2')
>>> Booking.of("1f#esperanto") == further
True
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONVERSION = "conversion"
"""The key in the start document and in a catalogue's metadata, and the name of the stream with the statistics."""


@dataclass(frozen=True, slots=True)
class Booking:
    """The part of one converter in a run; `name` is that of a further converter, "" for the first one."""

    run: str
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.run, str):  # from a document: in the spool, it would stop the sender for ever
            raise TypeError(f"the uid of a run is {self.run!r}, not a string")

    @classmethod
    def of(cls, run_uid: str) -> "Booking":
        """Return the booking whose frames a server has under `run_uid`."""
        run, _, name = run_uid.partition("#")
        return cls(run, name)

    @property
    def run_uid(self) -> str:
        """The run uid of its frames on the server."""
        return f"{self.run}#{self.name}" if self.name else self.run

    @property
    def key(self) -> str:
        """Its key in the start document and in a catalogue's metadata."""
        return self.stream(CONVERSION)

    def stream(self, name: str) -> str:
        """Return the name of its stream that is called `name` for the first converter."""
        if not self.name:
            return name
        stem, dash, number = name.partition("-")
        return f"{stem}_{self.name}{dash}{number}"


def bookings_of(start: Mapping[str, Any]) -> list[Booking]:
    """Return the bookings of a run, one for each of its converters.

    >>> start = {"uid": "0f3e", "conversion": {"device": "a/b/1"}, "conversion_esp": {"device": "a/b/2"}}
    >>> [booking.run_uid for booking in bookings_of(start)]
    ['0f3e', '0f3e#esp']
    """
    prefix = f"{CONVERSION}_"
    named = {key.removeprefix(prefix): facts for key, facts in start.items() if key.startswith(prefix)}
    further = [name for name, facts in named.items() if isinstance(facts, Mapping) and "device" in facts]
    return [Booking(start["uid"]), *(Booking(start["uid"], name) for name in further)]


def booking_in(start: Mapping[str, Any], converter: str, address: str) -> Booking:
    """Return the part of a converter in a run, from the start document.

    A converter that is not named there is the first one, unless that is a converter of another server.

    Parameters
    ----------
    start: the start document
    converter: name of the converter, "" outside of a session
    address: of its server

    """
    booking = Booking(start["uid"], converter)
    if not converter or booking.key in start:
        return booking
    first = start.get(CONVERSION)
    server = first.get("device") if isinstance(first, Mapping) else None
    return booking if server and server != address else Booking(start["uid"])
