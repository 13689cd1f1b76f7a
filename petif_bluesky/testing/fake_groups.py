"""The groups of a fake server: which frames are combined, and when a group is complete."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tango_server.messages import FrameRequest


@dataclass(slots=True)
class FakeGroup:
    """One group; `places` has the key of each member, None where it was superseded."""

    id: str
    run_uid: str | None
    places: dict[int, str | None] = field(default_factory=dict)
    size: int | None = None
    is_due: bool = False

    @property
    def job_id(self) -> str:
        """The id of its job."""
        return f"group:{self.id}"

    @property
    def members(self) -> list[str]:
        """The keys of its members, in their order."""
        keys = (self.places[place] for place in sorted(self.places))
        return [key for key in keys if key is not None]

    @property
    def is_complete(self) -> bool:
        """Whether it can be combined."""
        return self.is_due and len(self.places) == self.size and bool(self.members)


class FakeGroups:
    """All groups."""

    def __init__(self) -> None:
        self._groups: dict[str, FakeGroup] = {}
        self._sizes: dict[str, int] = {}
        self._place_of: dict[str, tuple[str, int]] = {}

    def __iter__(self) -> Iterator[FakeGroup]:
        return iter(tuple(self._groups.values()))

    def of(self, run_uid: str) -> list[FakeGroup]:
        """Return the groups of a run."""
        return [group for group in self._groups.values() if group.run_uid == run_uid]

    def add(self, key: str, request: FrameRequest) -> None:
        """Add a member."""
        if request.supersedes in self._place_of:
            self._leave(*self._place_of.pop(request.supersedes))
        if request.group is None or request.member is None:
            return
        group = self._groups.setdefault(request.group, FakeGroup(request.group, request.run_uid))
        group.places[request.member], group.is_due = key, True
        self._place_of[key] = request.group, request.member
        self.close({request.group: request.members} if request.members else {})
        group.size = self._sizes.get(group.id)

    def close(self, sizes: Mapping[str, int]) -> None:
        """Keep how many members groups have; a larger number wins."""
        for group, size in sizes.items():
            self._sizes[group] = max(size, self._sizes.get(group, 0))
            if group in self._groups:
                self._groups[group].size = self._sizes[group]

    def _leave(self, name: str, place: int) -> None:
        group = self._groups[name]
        group.places[place], group.is_due = None, True
