"""Of the files of one series, one makes the jobs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tango_server.conversion.files.series_names import makes_jobs, module_of


def making_jobs(*names: str) -> list[str]:
    return [name for name in names if makes_jobs(name, set(names))]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a_m1.nxs", ("a", 1, "")),
        ("a_m01.nxs", ("a", 1, "")),
        ("a_m12.nxs", ("a", 12, "")),
        ("a_m1_part00000.nxs", ("a", 1, "00000")),
        ("a_m2_m03_part00017.NXS", ("a_m2", 3, "00017")),
        ("a\nb_m1.nxs", ("a\nb", 1, "")),
        ("a_m1.h5", None),
        ("a_m0.nxs", None),
        ("a_m00.nxs", None),
        ("a_m001.nxs", None),
        ("a_m1_part.nxs", None),
        ("a_m1.nxs.tmp", None),
        ("a_m\u0661.nxs", None),
        ("_m1.nxs", None),
        ("a_master.nxs", None),
        ("", None),
    ],
)
def test_name_says_series_module_and_part(name: str, said: tuple[str, int, str] | None) -> None:
    module = module_of(name)
    assert (module and (module.series, module.number, module.part)) == said


@given(st.from_regex(r"\A[a-z_.]{1,6}_m[0-9]{1,2}(_part[0-9]{1,5})?\.nxs\Z"), st.integers(1, 99))
def test_names_beside_name_the_same_series(name: str, number: int) -> None:
    module = module_of(name)
    if module is not None:
        for other in map(module_of, module.beside(number)):
            assert other is not None
            assert (other.series, other.number, other.part) == (module.series, number, module.part)
        assert name in module.beside(module.number)


def test_first_module_of_each_part_makes_the_jobs() -> None:
    parts = [f"a_m{number}_part0000{part}.nxs" for part in range(3) for number in (1, 2, 3)]
    assert making_jobs(*parts, "a_master.nxs") == [f"a_m1_part0000{part}.nxs" for part in range(3)]
    assert making_jobs("b_m01.nxs", "b_m02.nxs", "b_m03.nxs", "b_master.nxs") == ["b_m01.nxs"]


def test_next_module_makes_jobs_while_the_first_is_missing() -> None:
    assert making_jobs("a_m2.nxs", "a_m3.nxs", "a_master.nxs") == ["a_m2.nxs"]


def test_modules_of_other_series_or_parts_are_no_neighbours() -> None:
    names = ["a_m1.nxs", "b_m2.nxs", "a_m2_part00000.nxs"]
    assert making_jobs(*names) == names


def test_master_without_modules_makes_jobs() -> None:
    names = ["a_master.nxs", "b_m1.nxs", "c_master.h5"]
    assert making_jobs(*names) == names


def test_eiger_data_makes_jobs_only_without_its_master() -> None:
    assert making_jobs("e_master.h5", "e_data_000001.h5", "e_data_000002.h5") == ["e_master.h5"]
    assert making_jobs("e_data_000001.h5", "f_master.h5") == ["e_data_000001.h5", "f_master.h5"]


def test_files_of_other_formats_make_jobs() -> None:
    names = ["a.tif", "a_m2.tif", "a.h5", "a_data.h5", "a_master.cbf"]
    assert making_jobs(*names) == names
