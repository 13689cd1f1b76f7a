"""The options for corrections, as fields of the recipe."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tango_server.commands.convert import with_companion_mask
from tango_server.commands.correction_options import correction_options, take_corrections, take_run_corrections
from tango_server.recipe.corrections import Corrections


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("flat.npy", "m.edf", "n.tif", "darks/b.dark.tif", "darks/a.tif", "darks/a.tif.metadata", "scan.h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "none").mkdir()
    return tmp_path.resolve()


def taken(*arguments: str) -> Any:
    """Return the fields, or the error message."""
    results: list[Any] = []

    @click.command()
    @correction_options
    def command(**options: Any) -> None:
        results.append(take_corrections(options))
        assert not options

    done = CliRunner().invoke(command, arguments)
    return results[0] if results else done.output


def test_no_option_is_no_correction(folder: Path) -> None:
    assert taken() is None


def test_all_options_make_a_recipe(folder: Path) -> None:
    fields = taken(
        "--dark", "darks", "--dark-combine", "median", "--flat", "flat.npy", "--flat-normalize", "--mask", "m.edf",
        "--mask", "n.tif", "--repair", "--saturation", "60000", "--masters-in", "dioptas", "--force-dark",
    )  # fmt: skip
    assert Corrections(**fields) == Corrections(
        dark=(str(folder / "darks/a.tif"), str(folder / "darks/b.dark.tif")),
        dark_combine="median",
        flat=str(folder / "flat.npy"),
        flat_normalize="mean",
        mask=(str(folder / "m.edf"), str(folder / "n.tif")),
        repair="median",
        saturation=60000,
        masters_in="dioptas",
        force=True,
    )


def test_too_many_darks_are_to_be_averaged_first(folder: Path) -> None:
    for number in range(101):
        (folder / "none" / f"{number}.tif").write_bytes(b"")
    assert all(word in taken("--dark", "none") for word in ("--dark", "101", "100", "petif average"))


def test_data_sets_are_named_with_their_file(folder: Path) -> None:
    fields = taken("--dark", "scan.h5::/exchange/dark", "--flat", "::/exchange/flat")
    assert fields == {"dark": [f"{folder / 'scan.h5'}::/exchange/dark"], "flat": "::/exchange/flat"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--dark", "gone.tif"), ("--dark", "gone.tif")),
        (("--mask", "m.edf", "--mask", "gone.edf"), ("--mask", "gone.edf")),
        (("--dark", "none"), ("--dark", "none", "no frames")),
        (("--dark-combine", "median"), ("--dark-combine", "--dark")),
        (("--flat-normalize",), ("--flat-normalize", "--flat")),
        (("--force-dark", "--mask", "m.edf"), ("--force-dark", "--dark")),
        (("--saturation", "0"), ("--saturation", "0")),
    ],
)
def test_wrong_options_are_refused_by_name(folder: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    message = taken(*arguments)
    assert all(word in message for word in words)


def of_run(**given: Any) -> Any:
    names = (
        "dark",
        "dark_combine",
        "flat",
        "flat_normalize",
        "mask",
        "repair",
        "saturation",
        "masters_in",
        "force_dark",
    )
    return take_run_corrections({**dict.fromkeys(names), **given}, lambda path: f"/there/{path}")


def test_masters_of_a_run_are_files_of_the_server() -> None:
    assert of_run() == {}
    assert of_run(dark=("run",), dark_combine="median") == {"dark": ["run"], "dark_combine": "median"}
    assert of_run(dark=("a.tif", "b.h5::/dark"), flat="::/flat", mask=("m.edf",), force_dark=True) == {
        "dark": ["/there/a.tif", "/there/b.h5::/dark"],
        "flat": "::/flat",
        "mask": ["/there/m.edf"],
        "force": True,
    }
    with pytest.raises(click.UsageError, match="--dark"):
        of_run(dark=("run", "a.tif"))


@pytest.mark.parametrize(
    ("corrections", "kept", "in_header"),
    [
        ({"mask": ["/m.tif"]}, None, {"mask": "/m.tif"}),
        ({"mask": ["/m.TIFF"], "dark": ["/d.tif"]}, {"dark": ["/d.tif"]}, {"mask": "/m.TIFF"}),
        ({"mask": ["/m.edf"]}, {"mask": ["/m.edf"]}, {}),
        ({"mask": ["/m.tif", "/n.tif"]}, {"mask": ["/m.tif", "/n.tif"]}, {}),
        (
            {"mask": ["/m.tif"], "masters_in": "dioptas"},
            {"mask": ["/m.tif"], "masters_in": "dioptas"},
            {},
        ),
        (None, None, {}),
    ],
)
def test_single_tiff_mask_goes_to_the_header_of_esperanto(corrections: Any, kept: Any, in_header: Any) -> None:
    assert with_companion_mask(corrections, {"axis": "up"}) == (kept, {"axis": "up", **in_header})
