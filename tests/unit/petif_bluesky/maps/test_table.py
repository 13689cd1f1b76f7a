"""The table of a map."""

import csv
from pathlib import Path
from typing import Any

from petif_bluesky.maps.placeholders import failed_points
from petif_bluesky.maps.table import tables_of, write_tables
from tango_server.messages import FrameReport, MapPoint, PixelCounts

UID = "3f9c2a1b-7d91"


def report(point: int, outcome: str, folder: Path = Path("/processed"), **fields: Any) -> FrameReport:
    place = MapPoint(point=point, shape=(2, 2), motors=("y", "x"), positions=(point // 2, point % 2), name="pattern")
    output = str(folder / f"pattern_{point:05d}.tif") if outcome in {"converted", "placeholder"} else None
    return FrameReport.model_validate({
        "source": f"/raw/{point}.tif", "outcome": outcome, "finished": 1.0, "map": place, "output": output,
        "run_uid": UID, **fields,
    })  # fmt: skip


def test_best_outcome_of_a_point_counts() -> None:
    reports = [
        report(0, "failed"), report(0, "placeholder"), report(1, "converted"), report(1, "failed"),
        report(2, "failed"), report(0, "converted", reason="retried"), report(3, "grouped", group="g", member=0),
    ]  # fmt: skip
    (table,) = tables_of(reports)
    assert [each and each.outcome for each in table.reports] == ["converted", "converted", "failed", None]
    assert table.reports[0] is not None
    assert table.reports[0].reason == "retried"
    assert table.missing == [2, 3]
    assert [(each.map and each.map.point) for each in failed_points(reports)] == [2]


def test_table_lists_every_point_in_row_order(tmp_path: Path) -> None:
    pixels = PixelCounts(total=12.5, overexposed=3)
    strange = report(3, "failed", source="/raw/a \udcff,b.tif", reason='"quoted", and\nmore')
    reports = [strange, report(1, "converted", tmp_path, pixels=pixels), report(0, "placeholder", tmp_path)]
    (path,) = write_tables(reports)
    assert path == tmp_path / f"map_{UID[:8]}.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["point"], row["row"], row["column"], row["outcome"]) for row in rows] == [
        ("0", "0", "0", "placeholder"), ("1", "0", "1", "converted"), ("2", "1", "0", "missing"),
        ("3", "1", "1", "failed"),
    ]  # fmt: skip
    assert [(row["total"], row["overexposed"]) for row in rows] == [("", ""), ("12.5", "3"), ("", ""), ("", "")]
    assert (rows[1]["y"], rows[1]["x"], rows[1]["file"]) == ("0.0", "1.0", str(tmp_path / "pattern_00001.tif"))
    assert rows[3]["reason"] == '"quoted", and\\nmore'
    assert list(tmp_path.iterdir()) == [path]


def test_map_with_a_folder_of_its_own_has_a_plain_table(tmp_path: Path) -> None:
    folder = tmp_path / f"pattern_{UID[:8]}"
    assert not write_tables([report(0, "converted", folder)]), "this machine does not see the folder"
    folder.mkdir()
    assert write_tables([report(0, "converted", folder)]) == [folder / "map.csv"]
