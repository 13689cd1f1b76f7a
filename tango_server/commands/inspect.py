"""`petif inspect`: what a file is."""

import json
import sys
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One file a line, as JSON.")
def inspect(*, files: tuple[Path, ...], as_json: bool) -> None:
    """Tell what files are: structure, completeness, tags, provenance, sidecar.

    Exit code 0: all are complete; 1: some are not.
    """
    from tango_server.conversion.errors import ConversionError
    from tango_server.inspection import inspect_file

    whole = True
    for path in files:
        try:
            found = inspect_file(path)
        except ConversionError as error:
            click.echo(str(error), err=True)
            whole = False
            continue
        whole = whole and found["state"] == "complete"
        click.echo(json.dumps(found) if as_json else "\n".join(_lines(found)))
    sys.exit(0 if whole else 1)


def _lines(found: dict[str, Any]) -> list[str]:
    state = {"complete": "complete", "incomplete": "NOT complete", "not_tiff": "no TIFF"}[found["state"]]
    lines = [f"{found['path']}: {state}" + (f": {found['problem']}" if found["problem"] else "")]
    lines.append(f"  file        {found['kind']}, {found['bytes']} bytes, directory {found['directory']}")
    for number, page in enumerate(found["pages"]):
        size = f"{page.pop('rows')} rows x {page.pop('columns')} columns of {page.pop('pixel_type')}"
        lines.append(f"  page {number:<6} {size}")
        lines += [f"    {name:<16} {value}" for name, value in page.items() if name != "description"]
    provenance = found["provenance"]
    lines.append(f"  provenance  {'none: not written by petif' if provenance is None else json.dumps(provenance)}")
    if provenance is not None and provenance["placeholder"]:
        lines.append(f"  PLACEHOLDER all zeros: {provenance['source']} had not come when this file was made")
    sidecar = found["sidecar"]
    if sidecar is None:
        return [*lines, "  sidecar     none"]
    return [*lines, f"  sidecar     {sidecar['path']}, beam centre ({sidecar['center_x']}, {sidecar['center_y']})"]
