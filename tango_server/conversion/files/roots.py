"""Where a frame may be, and where its output goes.

The path rule: the first path component named `raw`, from the left below the root that contains the file, or the root's
own name, becomes `processed`.

>>> from pathlib import PurePosixPath
>>> print(apply_rule(PurePosixPath("/data/raw/cell/raw/a.tif"), PurePosixPath("/data")))
/data/processed/cell/raw/a.tif
>>> print(apply_rule(PurePosixPath("/data/raw/a.tif"), PurePosixPath("/data/raw")))
/data/processed/a.tif
>>> print(apply_rule(PurePosixPath("/data/sample_raw/a.tif"), PurePosixPath("/data")))
None
"""

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import TypeVar

from tango_server.conversion.errors import NoOutputPathError, OutsideRootsError, UnfitPathError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.naming import default_name, esperanto_path, is_of_other_format, map_path, named_by
from tango_server.conversion.files.path_checks import require_fit
from tango_server.messages import MapPoint
from tango_server.recipe import NewFile, Recipe
from tango_server.text import printable

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


Resolve = Callable[[Path], Path]


def resolve_path(path: Path) -> Path:
    """Return `path.resolve()`; links in a loop are an error, as they were before Python 3.13.

    Raises
    ------
    OSError
        or RuntimeError, before Python 3.13: if links lead in a loop.

    """
    resolved = path.resolve()
    try:
        resolved.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise
    return resolved


def caching_resolver() -> Resolve:
    """Return a function that resolves paths, each folder only once; for the paths of one call of a client.

    Later changes are noticed when the file is opened: see `tango_server.conversion.files.sandbox`.
    """
    folders: dict[str, Path] = {}

    def resolve(path: Path) -> Path:
        folder, name = os.path.split(path)
        if os.name == "nt" or name in {"", "..", "."}:
            return resolve_path(path)
        known = folders.get(folder)
        if known is None:
            known = folders[folder] = resolve_path(Path(folder))
        try:
            os.readlink(os.path.join(known, name))  # noqa: PTH115, PTH118 - this runs a thousand times in a call
        except OSError:  # no link, or nothing there yet
            return known / name
        return resolve_path(path)

    return resolve


@dataclass(frozen=True, slots=True)
class Roots:
    """The folders that may be read and written, resolved. Without any, all folders may (offline use).

    `private` folders, the server's own, may be neither read nor written, even below a root; a folder that contains a
    root is never private. `every` are all the folders that may be read, `read` only those of one job: a file named in a
    recipe may be below another root than the frame.
    """

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    private: tuple[Path, ...] = ()
    every: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.read) != bool(self.write):
            raise ValueError("read roots without write roots, or the reverse, would allow access to all folders")

    @classmethod
    def of(
        cls, read: Iterable[str | Path], write: Iterable[str | Path] = (), private: Iterable[str | Path] = ()
    ) -> "Roots":
        """Return the roots. The default write roots are the read roots, and their outputs by the path rule."""
        readable = tuple(Path(root).resolve() for root in read)
        writable = tuple(Path(root).resolve() for root in write)
        if not writable:
            images = (root.with_name(PROCESSED) for root in readable if root.name == RAW)
            writable = (*readable, *images)
        hidden = (Path(folder).resolve() for folder in private)
        above = {folder for root in (*readable, *writable) for folder in (root, *root.parents)}
        return cls(read=readable, write=writable, private=tuple(folder for folder in hidden if folder not in above))

    @property
    def outputs(self) -> "Roots":
        """The same, for reading files below the write roots."""
        return Roots(read=self.write, write=self.write, private=self.private)

    @property
    def named(self) -> "Roots":
        """The same, for reading files that a recipe names."""
        return Roots(read=self.every or self.read, write=self.write, private=self.private)

    def source(self, path: str | Path, resolve: Resolve = resolve_path) -> Path:
        """Return the resolved path of a source.

        Raises
        ------
        UnfitPathError
            if it is not absolute, too long, or has control characters.
        OutsideRootsError
            if it is outside the read roots, with links and `..` resolved; the same whether it exists or not.

        """
        return self._within(path, self.read, "read", resolve)

    def frame(self, path: str | Path, resolve: Resolve = resolve_path) -> Path:
        """Return the path of a frame with its folder resolved and its own name kept, even if it is a symbolic link.

        Outputs are named after the link, not after its target. Raises as `source` does, for the link and its target.
        """
        resolved = self.source(path, resolve)
        folder, name = os.path.split(path)
        if name in {"", ".", ".."}:
            return resolved
        kept = resolve(Path(folder)) / name
        if kept == resolved or not kept.is_symlink():
            return resolved
        self.source(kept.parent, resolve)
        return kept

    def target(self, path: Path, resolve: Resolve = resolve_path) -> Path:
        """Return the resolved path of an output; raises as `source` does, for the write roots."""
        return self._within(path, self.write, "written", resolve)

    def root_of(self, source: Path) -> Path:
        """Return the innermost read root that contains `source`, the file system's own root if there are none."""
        return _innermost(source, self.read)

    def write_root_of(self, target: Path) -> Path:
        """Return the innermost write root that contains `target`, the file system's own root if there are none."""
        return _innermost(target, self.write)

    def _within(self, path: str | Path, roots: tuple[Path, ...], use: str, resolve: Resolve) -> Path:
        if roots:
            require_fit(str(path))
        written = Path(path)
        try:
            resolved = written if roots and _is_of_processes(written, roots) else resolve(written)
            inside = not roots or (self._holds(resolved, roots) and self._passes(written, roots, resolve))
        except (OSError, RuntimeError, ValueError) as error:  # links in a loop, too long a name, a NUL byte
            if not roots or any(_lies_below(written, root) for root in roots):
                problem = f"the path cannot be resolved ({error})"
                raise UnfitPathError(printable(str(path)), problem, "Check the path.") from error
            inside = False  # and clients learn nothing of what is out there
        if not inside:
            raise OutsideRootsError(
                printable(str(path)),
                f"outside the folders that may be {use} ({', '.join(map(str, roots))})",
                f"Move the file, or add its folder to the server's {'read' if use == 'read' else 'write'}_roots.",
            )
        if roots and str(resolved) != str(path):
            require_fit(str(resolved))
        return resolved

    def _holds(self, resolved: Path, roots: tuple[Path, ...]) -> bool:
        return any(_lies_below(resolved, root) for root in roots) and not any(
            _lies_below(resolved, folder) for folder in self.private
        )

    def _passes(self, written: Path, roots: tuple[Path, ...], resolve: Resolve) -> bool:
        """Whether a path is inside at its first `..`: a way through the outside would reveal links there."""
        if ".." not in written.parts:
            return True
        before = Path(*written.parts[: written.parts.index("..")])
        return self._holds(resolve(before), roots)


ANYWHERE = Roots()
NO_FIELDS: Mapping[str, object] = MappingProxyType({})


def output_path(
    frame: FrameLocation | Path,
    recipe: Recipe,
    roots: Roots = ANYWHERE,
    fields: Mapping[str, object] = NO_FIELDS,
    resolve: Resolve = resolve_path,
) -> Path:
    """Return the path of the output, within the write roots, of a `frame`, whose file `Roots.frame` returned.

    `fields` are the frame's, for a template of the name: run, seq_num and metadata. `resolve` may cache folders.

    Raises
    ------
    NameTemplateError
        if the template needs a missing field, or gives an invalid file name.
    NoOutputPathError
        if the path rule applies and finds nothing to replace, or the output would be the source itself.
    OutsideRootsError
        if the output would be outside the write roots.
    UnfitPathError
        if the server accepts no such path as the recipe's folder, or a symbolic link, a frame in a container or another
        file than a TIFF would be converted in place.

    """
    frame = FrameLocation(frame) if isinstance(frame, Path) else frame
    source = frame.file
    link = source.is_symlink()
    if not isinstance(recipe.output, NewFile):
        if is_of_other_format(frame):
            raise _unfit_in_place(frame)
        if link:
            raise UnfitPathError(
                printable(str(source)),
                "cannot convert a symbolic link in place: the output would replace the link",
                "Convert it to a new file, or give the path of the link's target.",
            )
        return roots.target(source, resolve)
    if recipe.output.folder is not None:
        output: Path | None = Path(recipe.output.folder) / default_name(frame)
    else:
        image = apply_rule(source, roots.root_of(source))
        output = None if image is None else image.with_name(default_name(frame))
    if output is None:
        raise NoOutputPathError(
            source,
            f"the path rule finds no folder named {RAW!r} below {roots.root_of(source)} to replace by {PROCESSED!r}",
            "Give the recipe an output folder (--output-dir), or keep raw frames in a folder named 'raw'.",
        )
    if recipe.output.template is not None:
        output = output.with_name(named_by(recipe.output.template, frame, fields, recipe.format))
    elif recipe.format == "esperanto":
        output = output.parent / esperanto_path(frame, fields)
    elif isinstance(point := fields.get("map"), MapPoint):
        output = output.parent / map_path(frame, point, str(fields.get("run") or ""))
    target = roots.target(output, resolve)
    if target == source or (link and target == resolve(source)):
        raise NoOutputPathError(
            source,
            "the output would be the source itself",
            "Give another output folder (--output-dir), or convert in place (--in-place).",
        )
    return target


def _unfit_in_place(frame: FrameLocation) -> UnfitPathError:
    container = frame.index is not None or frame.data_set
    problem = "frames in a container are never converted in place" if container else "the file is not a TIFF"
    return UnfitPathError(
        printable(str(frame)), f"cannot convert in place: {problem}", 'Convert to new files (output mode "new").'
    )


def _is_of_processes(path: Path, roots: tuple[Path, ...]) -> bool:
    """Whether a path goes through /proc, whose links reveal which files processes have open."""
    if any(_lies_below(path, root) for root in roots):
        return False
    plain = "/" + os.path.normpath(path).lstrip("/") + "/"
    return plain.startswith(("/proc/", "/dev/fd/", "/dev/std"))


def _innermost(path: Path, roots: tuple[Path, ...]) -> Path:
    holders = [root for root in roots if _lies_below(path, root)]
    return max(holders, key=lambda root: len(str(root))) if holders else Path(path.anchor)


def _lies_below(path: Path, root: Path) -> bool:
    if os.name == "nt":
        return path.is_relative_to(root)
    top = str(root)
    return str(path) == top or str(path).startswith(top.rstrip("/") + "/")
