"""Whether an existing output is what a conversion would write again."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tango_server.conversion.combining.member_list import member_list_path
from tango_server.conversion.corrections.master_files import read_master
from tango_server.conversion.errors import ConversionError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.provenance import Provenance, origin_of
from tango_server.conversion.records import record_of
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import split_master


class OutputCheck:
    """Compares existing outputs with their sources, a recipe and the content of its masters, which are read once."""

    def __init__(self, recipe: Recipe, roots: Roots = ANYWHERE) -> None:
        self._recipe = recipe
        self._roots = roots
        self._hashes: dict[tuple[str, Path | None], str] = {}

    def is_current(self, source: FrameLocation, output: Path) -> bool:
        """Whether the output is not older than the source, and made from it with this recipe and the same masters.

        Of a file that this program did not write, or that cannot be read, only the time is compared.
        """
        if _is_older(output, [source.file]):
            return False
        try:
            provenance = record_of(output, self._roots.outputs)
        except ConversionError:
            return True
        return provenance is None or (
            provenance.origin == origin_of(source, output)
            and provenance.matches(self._recipe)
            and self._has_masters(provenance, source.file)
        )

    def is_current_group(self, members: Sequence[FrameLocation], output: Path, number: int) -> bool:
        """Whether the output is not older than all `members`, and combined from them of `number` with this recipe."""
        if _is_older(output, {member.file for member in members}):
            return False
        try:
            found = record_of(output, self._roots.outputs)
        except ConversionError:
            return False
        if found is None or found.combined is None or not found.is_made_with(self._recipe):
            return False
        return (
            (found.combined.get("frames"), found.combined.get("used")) == (number, len(members))
            and found.is_of(members, output)
            and self._has_masters(found, members[0].file)
            and member_list_path(output).exists()
        )

    def _has_masters(self, provenance: Provenance, source: Path) -> bool:
        """Whether the provenance has the masters of the recipe, as they are now."""
        recorded = [(master.kind, master.sha256) for master in provenance.masters]
        expected = [(kind, self._hash(path, source)) for kind, path in self._masters()]
        if self._recipe.esperanto is not None:  # its header has the first of each kind, and the beginnings of hashes
            expected = [next(each for each in expected if each[0] == kind) for kind, _ in recorded]
        return len(recorded) == len(expected) and all(
            kind == wanted and digest.startswith(digits)
            for (kind, digits), (wanted, digest) in zip(recorded, expected, strict=True)
        )

    def _masters(self) -> list[tuple[str, str]]:
        recipe = self._recipe
        if recipe.corrections is None:
            return []
        own = recipe.esperanto.mask if recipe.esperanto else None
        return [*recipe.corrections.masters, *([] if own is None else [("mask", own)])]

    def _hash(self, path: str, source: Path) -> str:
        """Return the SHA-256 of a master; of one that cannot be read a text that is no hash."""
        key = (path, None if split_master(path)[0] else source)
        if key not in self._hashes:
            try:
                self._hashes[key] = read_master(path, self._roots, source)[0].sha256
            except ConversionError:  # its conversion will fail with the reason
                self._hashes[key] = "unreadable"
        return self._hashes[key]


def _is_older(output: Path, sources: Iterable[Path]) -> bool:
    """Whether the output is older than one of its sources, or one of all these files cannot be accessed."""
    try:
        made = output.stat().st_mtime_ns
        return any(made < source.stat().st_mtime_ns for source in sources)
    except OSError:
        return True
