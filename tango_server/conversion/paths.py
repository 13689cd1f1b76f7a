"""Where a frame may lie, and where its output goes.

The path rule: the first path component named `raw`, from the left below the root that holds the file, or the root's own
name, becomes `processed`.

>>> from pathlib import PurePosixPath
>>> print(apply_rule(PurePosixPath("/data/raw/cell/raw/a.tif"), PurePosixPath("/data")))
/data/processed/cell/raw/a.tif
>>> print(apply_rule(PurePosixPath("/data/raw/a.tif"), PurePosixPath("/data/raw")))
/data/processed/a.tif
>>> print(apply_rule(PurePosixPath("/data/sample_raw/a.tif"), PurePosixPath("/data")))
None
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import TypeVar

from tango_server.conversion.errors import NoOutputPathError, OutsideRootsError
from tango_server.conversion.naming import named_by
from tango_server.recipe import NewFile, Recipe

RAW = "raw"
PROCESSED = "processed"

AnyPath = TypeVar("AnyPath", bound=PurePath)


def apply_rule(path: AnyPath, root: AnyPath) -> AnyPath | None:
    """Return `path` (below `root`) with its `raw` component replaced, None if it has no such component."""
    below = path.relative_to(root).parts
    *folders, _ = below or ("",)
    if RAW in folders:
        place = folders.index(RAW)
        return root.joinpath(*below[:place], PROCESSED, *below[place + 1 :])
    if root.name == RAW:
        return root.with_name(PROCESSED).joinpath(*below)
    return None


@dataclass(frozen=True, slots=True)
class Roots:
    """The folders that may be read and written, resolved. No `read` roots at all means: anywhere (offline use)."""

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()

    @classmethod
    def of(cls, read: Iterable[str | Path], write: Iterable[str | Path] = ()) -> "Roots":
        """Return the roots, by default with the read roots and their images under the rule as write roots."""
        readable = tuple(Path(root).resolve() for root in read)
        writable = tuple(Path(root).resolve() for root in write)
        if not writable:
            images = (root.with_name(PROCESSED) for root in readable if root.name == RAW)
            writable = (*readable, *images)
        return cls(read=readable, write=writable)

    def source(self, path: str | Path) -> Path:
        """Return the resolved path of a source.

        Raises
        ------
        OutsideRootsError
            if it lies outside of the read roots, symbolic links and `..` resolved, or is not absolute.

        """
        source = Path(path)
        if not source.is_absolute() and self.read:
            raise OutsideRootsError(source, "a relative path", "an absolute path", "Give the whole path of the file.")
        return _within(source, self.read, "read")

    def target(self, path: Path) -> Path:
        """Return the resolved path of an output; raise `OutsideRootsError` if it lies outside of the write roots."""
        if not path.is_absolute() and self.write:
            raise OutsideRootsError(path, "a relative path", "an absolute path", "Give the whole path of the folder.")
        return _within(path, self.write, "write")

    def root_of(self, source: Path) -> Path:
        """Return the longest read root that holds `source`, the file system's own root if there are none."""
        holders = [root for root in self.read if source.is_relative_to(root)]
        return max(holders, key=lambda root: len(root.parts), default=Path(source.anchor))

    def write_root_of(self, target: Path) -> Path:
        """Return the longest write root that holds `target`, the file system's own root if there are none."""
        holders = [root for root in self.write if target.is_relative_to(root)]
        return max(holders, key=lambda root: len(root.parts), default=Path(target.anchor))


ANYWHERE = Roots()
NO_FIELDS: Mapping[str, object] = MappingProxyType({})


def output_path(
    source: Path, recipe: Recipe, roots: Roots = ANYWHERE, fields: Mapping[str, object] = NO_FIELDS
) -> Path:
    """Return where the output of a resolved `source` goes, within the write roots.

    `fields` are the frame's, for a template of the name: run, seq_num and metadata.

    Raises
    ------
    NameTemplateError
        if the template asks for a field that there is not, or makes no file name.
    NoOutputPathError
        if the path rule is asked for and finds nothing to replace, or the output would be the source itself.
    OutsideRootsError
        if the output would lie outside of the write roots.

    """
    if not isinstance(recipe.output, NewFile):
        return roots.target(source)
    if recipe.output.folder is not None:
        output: Path | None = Path(recipe.output.folder) / source.name
    else:
        output = apply_rule(source, roots.root_of(source))
    if output is None:
        raise NoOutputPathError(
            source,
            f"no folder named {RAW!r} in its path below {roots.root_of(source)}",
            f"one to be replaced by {PROCESSED!r}",
            "Give the recipe an output folder, or keep raw frames below a folder named 'raw'.",
        )
    if recipe.output.template is not None:
        output = output.with_name(named_by(recipe.output.template, source, fields))
    target = roots.target(output)
    if target == source:
        raise NoOutputPathError(
            source, "the output would be the source itself", "another file", "Give another output folder, or in_place."
        )
    return target


def _within(path: Path, roots: tuple[Path, ...], purpose: str) -> Path:
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a loop, too long a name, a NUL byte
        raise OutsideRootsError(
            path, f"a path that can't be resolved ({error})", "a path", "Check the path."
        ) from error
    if roots and not any(resolved.is_relative_to(root) for root in roots):
        raise OutsideRootsError(
            path,
            f"it lies outside of the folders that may be {'read' if purpose == 'read' else 'written'}",
            f"a path below {', '.join(map(str, roots))}",
            f"Move the file, or start the server with this folder among its roots ({purpose}_roots).",
        )
    return resolved
