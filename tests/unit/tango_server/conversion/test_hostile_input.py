"""What a file, a name or a date may hold that once stopped or fooled everything; each right value is kept here."""

import json
import struct
import unicodedata
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import example, given
from hypothesis import strategies as st

from tango_server.conversion import convert_file
from tango_server.conversion.errors import ConversionError, SourceUnreadableError, UnsupportedImageError
from tango_server.conversion.provenance import tiff_time
from tango_server.conversion.sidecar import read_sidecar, sidecar_path
from tango_server.conversion.tiff.parser import MAX_ENTRIES, read_structure
from tango_server.conversion.tiff.record import read_provenance
from tango_server.jobs.ledger.database import Database, LedgerBusyError
from tango_server.jobs.ledger.history import History
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Finish
from tango_server.messages import FrameReport, RefusedRequest, ReportsQuery
from tango_server.recipe import Recipe
from tango_server.text import printable
from tests.unit.ledger_entries import job

TEXTS = st.text(st.characters() | st.sampled_from("\x1b\x00\n\u202e\ud800\udfff\udce9\u2028\ufeff\x9b"), max_size=60)


def is_harmless(text: str) -> bool:
    """Whether every encoding of Unicode takes a text, and no terminal obeys it."""
    text.encode("utf-8")
    return not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in text)


@given(TEXTS)
@example("\x1b[31m\x9b2J\u202e\udce9\n\r\x7f")
def test_text_of_others_is_harmless_to_all_who_get_it(text: str) -> None:
    assert is_harmless(printable(text))
    assert is_harmless(str(ConversionError(text, text, "Check it.")))
    report = FrameReport(source=text, output=text, outcome="failed", reason=text, finished=0)
    refused = RefusedRequest(source=text, reason=text)
    for value in (report.source, report.output, report.reason, refused.source, refused.reason):
        assert is_harmless(value or "")
    report.model_dump_json()
    refused.model_dump_json()


def test_harmless_text_stays_as_it_is() -> None:
    for text in ("/data/raw/\u03b2-Al\u2082O\u2083 (1).tif", r"C:\raw\a.tif", "caf\u00e9"):
        assert printable(text) == text
    assert printable("a" * 500, 100) == "a" * 100 + "..."


@pytest.mark.parametrize("seconds", [-1e12, -1.0, 0.0, 1.5e9, 1.5e10, 9.1e11, 1e300], ids=str)
def test_any_time_of_modification_has_a_date(seconds: float) -> None:
    date = tiff_time(seconds)
    assert len(date) == 19, date
    assert "1970" <= date[:4] <= "9999" or date[:4] == "1969", date


def described(path: Path, description: str) -> Path:
    """A frame with an ImageDescription of one's own, of bytes in Latin-1."""
    tifffile.imwrite(path, np.zeros((4, 4), np.uint16), description=description.encode("latin-1"), metadata=None)
    return path


RECORDS = {
    "lone surrogate": r'{"petif": 1, "source": "\ud800\u001b[31m", "from": "\udfff", "version": "1", "job": "\udc00"}',
    "deeply nested": "[" * 60_000,
    "nested in a record": '{"petif": 1, "recipe": ' + "[" * 60_000,
    "other types": '{"petif": 1, "recipe": [], "source": {}, "from": 1e400, "version": [[]], "job": 7}',
    "endless number": '{"petif": 1, "source": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_of_strangers_are_read_as_far_as_they_make_sense(tmp_path: Path, name: str) -> None:
    (tmp_path / "raw").mkdir()
    path = described(tmp_path / "raw" / "a.tif", RECORDS[name])
    record = read_provenance(read_structure(path))
    if record is not None:
        assert all(is_harmless(text) for text in (record.source, record.origin, record.version, record.job or ""))
        assert is_harmless(record.summary)
    with suppress(ConversionError):  # some of them say that they were converted already
        convert_file(path, Recipe())


def test_sidecars_with_endless_lines_are_read_in_linear_time(tmp_path: Path) -> None:
    frame = tmp_path / "a.tif"
    text = "[metadata]\n[centerfinder]\ncenterX=3\ncenterY=4\n" + " " * 900_000 + "\n" + "x " * 40_000 + "\n"
    sidecar_path(frame).write_text(text)
    sidecar = read_sidecar(frame)
    assert sidecar is not None
    assert sidecar.header.beam_center_x == 3


def test_a_sidecar_that_is_too_large_is_named(tmp_path: Path) -> None:
    frame = tmp_path / "a.tif"
    sidecar_path(frame).write_text("[metadata]\n" + "a=1\n" * 300_000)
    with pytest.raises(SourceUnreadableError, match=r"more than 1048576 bytes"):
        read_sidecar(frame)


def directory(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """A directory of a little-endian TIFF: (tag, type, count, value or offset) for each entry."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


def test_directories_that_share_their_values_are_damage(tmp_path: Path) -> None:
    segments, values_at = 100_000, 8
    body = b"II*\0" + struct.pack("<I", values_at + 4 * segments) + struct.pack("<I", 8) * segments
    for number in range(20):
        start = len(body)
        entries = [(256, 3, 1, 1), (257, 3, 1, segments), (258, 3, 1, 8), (273, 4, segments, 8), (279, 4, segments, 8)]
        size = len(directory(*entries))
        body += directory(*entries, following=0 if number == 19 else start + size)
    path = tmp_path / "shared.tif"
    path.write_bytes(body)
    structure = read_structure(path)
    assert (structure.state, len(structure.pages)) == ("damaged", 0)
    assert "overlap" in structure.problem


def test_strips_that_share_bytes_of_the_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "shared.tif"
    tifffile.imwrite(path, np.zeros((2, 8, 8), np.uint8), photometric="minisblack", metadata=None)
    pages = read_structure(path).pages
    first, second = (page.offsets[0] for page in pages)
    whole = path.read_bytes().replace(struct.pack("<I", second), struct.pack("<I", first))
    path.write_bytes(whole)
    with pytest.raises(UnsupportedImageError, match="overlap"):
        convert_file(path, Recipe())


def test_permanent_damage_is_distinguished_from_an_unfinished_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, MAX_ENTRIES + 1) + bytes(12 * MAX_ENTRIES + 100))
    assert read_structure(path).state == "damaged"
    entries = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 8), (258, 3, 1, 16), (273, 4, 1, 8), (279, 4, 1, 16)]
    path.write_bytes(b"II*\0" + struct.pack("<I", 24) + bytes(16) + directory(*entries))
    structure = read_structure(path)
    assert (structure.state, "twice" in structure.problem) == ("damaged", True)


LENIENT: dict[str, tuple[tuple[tuple[int, int, int, int], ...], int]] = {
    "byte count of zero": (((279, 4, 1, 0),), 0),
    "no byte count": ((), 0),
    "next directory at -1": (((279, 4, 1, 16),), 2**32 - 1),
    "orientation 0": (((274, 3, 1, 0), (279, 4, 1, 16)), 0),
    "private tag outside of the file": (((279, 4, 1, 16), (65_000, 7, 10_000, 1_000_000)), 0),
    "bits given twice": (((258, 3, 1, 8), (279, 4, 1, 16)), 0),
    "two values of bits": (((258, 3, 2, 8 | 8 << 16), (279, 4, 1, 16)), 0),
    "colour filter array": (((262, 3, 1, 32803), (279, 4, 1, 16)), 0),
}


@pytest.mark.parametrize("name", LENIENT)
def test_files_that_every_reader_takes_are_converted(tmp_path: Path, name: str) -> None:
    more, following = LENIENT[name]
    plain = {258: (258, 3, 1, 8)} if name != "two values of bits" else {}
    entries = [(256, 3, 1, 4), (257, 3, 1, 4), *plain.values(), (273, 4, 1, 8), *more]
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "a.tif"
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 24) + pixels.tobytes() + directory(*sorted(entries), following=following)
    )
    report = convert_file(path, Recipe())
    assert report.output is not None
    np.testing.assert_array_equal(tifffile.imread(report.output), pixels, err_msg=name)
    assert ("CFA" in report.reason) == (name == "colour filter array")


def test_a_predictor_without_compression_is_refused(tmp_path: Path) -> None:
    entries = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 8), (273, 4, 1, 8), (279, 4, 1, 16), (317, 3, 1, 2)]
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 24) + bytes(16) + directory(*entries))
    with pytest.raises(UnsupportedImageError, match="predictor 2 without compression"):
        convert_file(path, Recipe())


def test_every_image_of_a_stack_of_imagej_is_converted(tmp_path: Path) -> None:
    stack = np.arange(5 * 8 * 6, dtype=np.uint16).reshape(5, 8, 6)
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "stack.tif"
    tifffile.imwrite(path, stack, imagej=True, truncate=True)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1
        np.testing.assert_array_equal(file.asarray(), stack)
    report = convert_file(path, Recipe(rotation=90))
    assert report.pages == 5
    assert report.output is not None
    np.testing.assert_array_equal(tifffile.imread(report.output), np.rot90(stack, axes=(1, 2)))
    path.write_bytes(path.read_bytes().replace(b"images=5", b"images=9"))
    with pytest.raises(UnsupportedImageError, match="9 images by its description, but 1"):
        convert_file(path, Recipe())


def test_a_shape_that_promises_more_images_than_there_are_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "stack.tif"
    tifffile.imwrite(path, np.zeros((3, 8, 6), np.uint16), truncate=True, photometric="minisblack")
    with pytest.raises(UnsupportedImageError, match="3 images by its description, but 1"):
        convert_file(path, Recipe())


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "state" / "ledger.sqlite")


@pytest.mark.parametrize("mtime_ns", [2**63, 2**64, 10**21, -(2**70)])
def test_times_that_sqlite_cannot_hold_are_booked_as_the_nearest(database: Database, mtime_ns: int) -> None:
    ledger = Ledger(database)
    ledger.accept([job("a")])
    report = FrameReport(job_id="a", source="/raw/a.tif", outcome="converted", finished=1.7e9)
    ledger.finish([Finish(report, (100, mtime_ns))])
    assert ledger.pending() == 0
    database.close()


def test_a_job_whose_report_cannot_be_written_is_set_aside(database: Database) -> None:
    ledger = Ledger(database)
    ledger.accept([job("a")])
    ledger.set_aside("a", "its report can't be written", 1.8e9)
    assert ledger.pending() == 0
    (report,), _ = History(database).reports(ReportsQuery(job_ids=["a"]))
    assert (report.outcome, report.reason) == ("failed", "its report can't be written")
    database.close()


@pytest.mark.parametrize("what", ["deleted", "replaced", "folder moved"])
def test_a_ledger_that_is_gone_accepts_nothing(database: Database, what: str) -> None:
    ledger = Ledger(database)
    ledger.accept([job("a")])
    if what == "deleted":
        database.path.unlink()
    elif what == "replaced":
        other = database.path.with_name("other")
        other.write_bytes(database.path.read_bytes())
        other.replace(database.path)
    else:
        database.path.parent.rename(database.path.parent.with_name("elsewhere"))
    with pytest.raises(LedgerBusyError, match="moved, deleted or replaced"):
        ledger.accept([job("b")])
    if what == "folder moved":
        database.path.parent.with_name("elsewhere").rename(database.path.parent)
        ledger.accept([job("b")])
        assert ledger.pending() == 2
    database.close()


def test_unreadable_rows_stop_no_other_job(database: Database) -> None:
    ledger = Ledger(database)
    ledger.accept([job(name) for name in ("a", "b", "c")])
    with database.transaction() as connection:
        connection.execute("UPDATE jobs SET metadata=? WHERE job_id='a'", ('{"shape": ' + "[" * 100_000,))
        connection.execute("UPDATE jobs SET metadata=? WHERE job_id='b'", (json.dumps({"shape": [True, True]}),))
    fetched = ledger.fetch(0, 10)
    assert [one.job_id for one in fetched.jobs] == ["b", "c"]
    assert fetched.jobs[0].shape is None
    assert fetched.unreadable == {"a"}
    database.close()
