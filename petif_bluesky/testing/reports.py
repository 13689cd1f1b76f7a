"""Reports for a fake server: made-up ones, failures, or those of a real conversion."""

import secrets
import time
from collections.abc import Sequence

from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, output_path
from tango_server.messages import FrameReport, FrameRequest, GroupMember, GroupReport, Outcome
from tango_server.recipe import Recipe

XDI = Recipe.preset("xdi")
_FULL_SIZE = (2048, 2048)
_CONVERSION_TIME = 0.25
_LATENCY = 0.5


def converted_beside(request: FrameRequest) -> FrameReport:
    """Report a frame as converted, with the output path that a server would use; the file is not written."""
    recipe, now = request.recipe or XDI, time.time()
    frame = FrameLocation.of(request.source, request.frame)
    output = output_path(frame, recipe, fields=_fields(request), resolve=lambda path: path)
    return FrameReport(
        job_id=request.key,
        source=request.source,
        output=str(output),
        outcome="converted" if request.placeholder is None else "placeholder",
        reason=request.placeholder or "",
        shape=recipe.output_shape(_shape(request)),
        pixel_type=recipe.pixel_type or "float32",
        conversion_time=_CONVERSION_TIME,
        latency=_LATENCY,
        accepted=now - _LATENCY,
        finished=now,
        recipe_hash=recipe.hash,
        **request.origin,
    )


def failed(request: FrameRequest, reason: str) -> FrameReport:
    """Report a frame as failed.

    >>> failed(FrameRequest(source="/data/raw/a.tif"), "not a TIFF file").outcome
    'failed'
    """
    failure = {"outcome": "failed", "reason": reason, "finished": time.time()}
    return FrameReport(job_id=request.key, source=request.source, **failure, **request.origin)


def really_converted(request: FrameRequest) -> FrameReport:
    """Convert a frame in this process, and return its report."""
    from tango_server.conversion import convert_file  # noqa: PLC0415 - made-up reports need no OpenCV
    from tango_server.conversion.errors import ConversionError  # noqa: PLC0415 - as above

    if request.placeholder is not None:
        return _zeros(request)
    try:
        made = convert_file(request.source, request.recipe or XDI, frame=request.frame, fields=_fields(request))
    except ConversionError as error:
        return failed(request, str(error))
    return made.model_copy(update={"job_id": request.key, "latency": made.conversion_time, **request.origin})


def combined_beside(requests: Sequence[FrameRequest]) -> GroupReport:
    """Report frames as combined, with the output path that a server would use; the file is not written."""
    members = [_member(request, "grouped") for request in requests]
    return GroupReport(**{**dict(converted_beside(requests[0])), "member": None}, members=members)


def really_combined(requests: Sequence[FrameRequest]) -> GroupReport:
    """Combine frames in this process, and return their report."""
    from tango_server.conversion.combining.group import convert_group  # noqa: PLC0415 - made-up reports need no OpenCV
    from tango_server.conversion.combining.members import Member  # noqa: PLC0415 - as above
    from tango_server.conversion.errors import ConversionError  # noqa: PLC0415 - as above

    first = requests[0]
    members = [Member(FrameLocation.of(each.source, each.frame), _fields(each)) for each in requests]
    try:
        made = convert_group(members, first.recipe or XDI, group=first.group or "")
    except ConversionError as error:
        listed = [_member(request, "failed", str(error)) for request in requests]
        return GroupReport(**{**dict(failed(first, str(error))), "member": None}, members=listed)
    return made.model_copy(update={**first.origin, "member": None, "latency": made.conversion_time})


def _zeros(request: FrameRequest) -> FrameReport:
    """Write a placeholder, and return its report."""
    from tango_server.conversion.placeholder import make_placeholder  # noqa: PLC0415 - as above

    recipe, frame = request.recipe or XDI, FrameLocation.of(request.source, request.frame)
    made = make_placeholder(
        frame, recipe, _shape(request), output=output_path(frame, recipe, fields=_fields(request)), roots=ANYWHERE,
        reason=request.placeholder or "", token=secrets.token_hex(4),
    )  # fmt: skip
    return made.model_copy(update={"job_id": request.key, "latency": made.conversion_time, **request.origin})


def _member(request: FrameRequest, outcome: Outcome, reason: str = "") -> GroupMember:
    return GroupMember(source=request.source, frame=request.frame, outcome=outcome, reason=reason)


def _fields(request: FrameRequest) -> dict[str, object]:
    return {**request.fields, "run": request.run_uid or ""}


def _shape(request: FrameRequest) -> tuple[int, int]:
    match request.metadata.get("shape"):
        case [*_, int(rows), int(columns)]:
            return rows, columns
    return _FULL_SIZE
