"""`petif inspect`: what a file is."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from tango_server.commands.output import say


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One file a line, as JSON.")
def inspect(*, files: tuple[Path, ...], as_json: bool) -> None:
    """Tell what files are: structure, completeness, tags or header, provenance, sidecar.

    Exit code 0: all are complete; 1: some are not.
    """
    from tango_server.conversion.errors import ConversionError
    from tango_server.conversion.inspection import inspect_file

    whole = True
    for path in files:
        try:
            found = inspect_file(path)
        except ConversionError as error:
            say(str(error), err=True)
            whole = False
            continue
        whole = whole and found["state"] == "complete"
        say(json.dumps(found) if as_json else "\n".join(_lines(found)))
    sys.exit(0 if whole else 1)


def _lines(found: dict[str, Any]) -> list[str]:
    words = {"complete": "complete", "incomplete": "NOT complete", "damaged": "DAMAGED", "not_tiff": "no TIFF"}
    state = words[found["state"]]
    lines = [f"{found['path']}: {state}" + (f": {found['problem']}" if found["problem"] else "")]
    lines += _esperanto_lines(found) if found["kind"] == "ESPERANTO" else _tiff_lines(found)
    provenance = found["provenance"]
    lines.append(f"  provenance  {'none: not written by petif' if provenance is None else json.dumps(provenance)}")
    if provenance is not None and provenance["placeholder"]:
        lines.append(f"  PLACEHOLDER all zeros: {provenance['source']} had not come when this file was made")
    sidecar = found["sidecar"]
    if sidecar is None:
        return [*lines, "  sidecar     none"]
    return [*lines, f"  sidecar     {sidecar['path']}, beam centre ({sidecar['center_x']}, {sidecar['center_y']})"]


def _tiff_lines(found: dict[str, Any]) -> list[str]:
    lines = [f"  file        {found['kind']}, {found['bytes']} bytes, directory {found['directory']}"]
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
