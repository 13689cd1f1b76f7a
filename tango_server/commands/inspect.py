"""`petif inspect`: the structure, completeness and provenance of files."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from tango_server.commands.output import say
from tango_server.text import printable

_STILLNESS = "none: a server waits until size and modification time hold still"


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one file per line, as JSON.")
def inspect(*, paths: tuple[Path, ...], as_json: bool) -> None:
    """Describe files, or all frames in a folder: structure, completeness, tags or header, provenance, sidecar.

    Sub-folders and darks are left out of a folder; name a dark to inspect it.

    Exit codes: 0: all files are complete; 1: some are not, or a path does not exist or has no frames.
    """
    from tango_server.conversion.errors import ConversionError
    from tango_server.conversion.files.frame_location import FrameLocation
    from tango_server.conversion.inspection import inspect_file
    from tango_server.jobs.containers import WHOLE_FILE, may_kill_its_reader, read_elsewhere

    files, without_frames = _files_of(paths)
    for problem in without_frames:
        say(problem, err=True)
    whole = not without_frames
    frames = [FrameLocation.of(path) for path in files]
    elsewhere = read_elsewhere([one for one in frames if may_kill_its_reader(one.file)], inspect_file, WHOLE_FILE)
    for one in frames:
        try:
            found = elsewhere[one] if one in elsewhere else inspect_file(one)
        except ConversionError as error:
            found = str(error)
        if isinstance(found, str):
            say(found, err=True)
            whole = False
            continue
        whole = whole and found["state"] == "complete"
        say(json.dumps(found) if as_json else "\n".join(_lines(found)))
    sys.exit(0 if whole else 1)


def _files_of(paths: tuple[Path, ...]) -> tuple[list[Path], list[str]]:
    """Return the files to describe, ESPERANTO frames of folders included, and why folders have none."""
    from tango_server.jobs.frame_listing import EXPECTED, frames_in

    files: list[Path] = []
    problems = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        try:
            found = [*frames_in(path), *sorted(path.glob("*.esperanto"))]
        except OSError as error:
            problems.append(f"{path}: cannot list the folder: {error.strerror}.")
            continue
        files += found
        if not found:
            problems.append(f"{path}: no frames in this folder. {EXPECTED}, or .esperanto files, other than darks.")
    return files, problems


def _lines(found: dict[str, Any]) -> list[str]:
    words = {"complete": "complete", "incomplete": "NOT complete", "damaged": "DAMAGED", "not_tiff": "not a TIFF file"}
    state = words[found["state"]]
    lines = [f"{found['path']}: {state}" + (f": {found['problem']}" if found["problem"] else "")]
    if "frames" in found:
        lines += _frame_lines(found)
    else:
        lines += _esperanto_lines(found) if found["kind"] == "ESPERANTO" else _tiff_lines(found)
    provenance = found["provenance"]
    if provenance is None:
        lines.append("  provenance  none: not written by petif")
    else:
        corrected = {"combined", "masters", "masked", "overexposed"}  # these have lines of their own
        record = {name: value for name, value in provenance.items() if name not in corrected}
        lines.append(f"  provenance  {json.dumps(record)}")
    if provenance is not None and provenance["placeholder"]:
        lines.append(f"  PLACEHOLDER all zeros: {provenance['source']} did not exist when this file was written")
    lines += _combined(found) + _corrections(provenance or {})
    sidecar = found["sidecar"]
    if sidecar is None:
        return [*lines, "  sidecar     none"]
    return [*lines, f"  sidecar     {sidecar['path']}, beam centre ({sidecar['center_x']}, {sidecar['center_y']})"]


def _frame_lines(found: dict[str, Any]) -> list[str]:
    """Return lines for a file of another format than TIFF."""
    lines = [f"  file        {found['kind']}, {found['bytes']} bytes"]
    if found["frames"] is not None:
        lines.append(f"  frames      {found['frames']}")
    lines += [f"    {frames:<16} NOT complete: {problem}" for frames, problem in found["not_complete"].items()]
    lines.append(f"  proof       {found['proof'] or _STILLNESS}")
    if found["image"] is not None:
        image = found["image"]
        lines.append(f"  image       {image['rows']} rows x {image['columns']} columns of {image['pixel_type']}")
        lines.append(f"    {'masked':<16} {found['masked']} pixels by the detector itself")
    return lines + [f"    {name:<16} {printable(str(value))}" for name, value in found["header"].items()]


def _combined(found: dict[str, Any]) -> list[str]:
    """Return lines for the frames that became one."""
    if "members" not in found:
        return []
    facts = found["provenance"]["combined"]
    missing = "" if facts["used"] == facts["frames"] else f", {facts['frames'] - facts['used']} MISSING"
    names = f": {printable(facts['first'])} to {printable(facts['last'])}" if "first" in facts else ""
    return [
        f"  combined    {facts['method']} of {facts['used']} of {facts['frames']} frames{missing}{names}",
        *(
            f"    {each['outcome']:<16} {printable(each['source'])}" + (f": {each['reason']}" if each["reason"] else "")
            for each in found["members"]
        ),
        *([f"    {'frames unknown':<16} {found['members_problem']}"] if "members_problem" in found else []),
    ]


def _corrections(provenance: dict[str, Any]) -> list[str]:
    """Return lines for the masters and pixel counts of a corrected frame."""
    if "masters" not in provenance:
        return []
    lines = []
    for master in provenance["masters"]:
        scale = "" if master["scale"] == 1 else f", scaled by {master['scale']:g}"
        run = "" if master["run_uid"] is None else f", of run {master['run_uid']}"
        lines.append(
            f"  {master['kind']:<11} {master['path'] or '(path unknown)'}{scale}{run}, SHA-256 {master['sha256']}"
        )
    over = provenance["overexposed"]
    return [*lines, f"  pixels      {provenance['masked']} masked, {'unknown' if over is None else over} overexposed"]


def _tiff_lines(found: dict[str, Any]) -> list[str]:
    lines = [f"  file        {found['kind']}, {found['bytes']} bytes, directory {found['directory']}"]
    if found["state"] == "complete":
        lines.append(f"  proof       {found['proof'] or _STILLNESS}")
    lines += [f"    {name:<16} {printable(str(value))}" for name, value in found["header"].items()]
    for number, page in enumerate(found["pages"]):
        size = f"{page.pop('rows')} rows x {page.pop('columns')} columns of {page.pop('pixel_type')}"
        lines.append(f"  page {number:<6} {size}")
        lines += [
            f"    {name:<16} {value}"
            for name, value in page.items()
            if name != "description" or found["provenance"] is None
        ]
        if number < len(found["tags"]):
            lines += [f"    {'tag ' + code:<16} {text}" for code, text in found["tags"][number].items()]
    return lines


def _esperanto_lines(found: dict[str, Any]) -> list[str]:
    lines = [f"  file        {found['kind']}, {found['bytes']} bytes"]
    header = found["header"]
    if header is None:
        return lines
    lines.append(f"  frame       {header['side']} x {header['side']} pixels of int32, {header['encoding']}")
    for name, start in header["start"].items():
        lines.append(f"    {name:<16} {start:g} to {header['end'][name]:g} deg")
    numbers = {
        "wavelength": f"{header['wavelength']:g} Angstrom",
        "distance": f"{header['distance']:g} mm",
        "pixel size": f"{header['pixel_size']:g} mm",
        "direct beam": "({:g}, {:g}) pixels".format(*header["origin"]),
        "exposure": f"{header['exposure']:g} s, monitor {header['monitor']:g}",
        "kappa goniometer": f"alpha {header['alpha']:g}, beta {header['beta']:g} deg",
        "taken": header["timestamp"],
        "history": header["history"],
    }
    return lines + [f"    {name:<16} {value}" for name, value in numbers.items()]
