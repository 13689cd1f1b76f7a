"""Which files belong together, by their names alone: the modules of a Lambda, a master and its data files.

====================================  =================================================================
`{series}_m1.nxs`, `{series}_m01.nxs`  one module of a Lambda, a file of its own for each
`{series}_m1_part00000.nxs`            the same, where the frames of a module are spread over several files
`{series}_master.nxs`                  virtual data sets over the modules
`{series}_master.h5`                   of an Eiger, with links to `{series}_data_000001.h5`, ...
====================================  =================================================================
"""

import re
from collections.abc import Container
from dataclasses import dataclass

_MODULE = re.compile(
    r"(?P<series>.+)_m(?P<number>[0-9]{1,2})(?P<rest>(?:_part(?P<part>[0-9]{1,8}))?\.nxs)", re.IGNORECASE | re.DOTALL
)
_MASTER = re.compile(r"(?P<series>.+)_master(?P<suffix>\.nxs)", re.IGNORECASE | re.DOTALL)
_EIGER_DATA = re.compile(r"(?P<series>.+)_data_[0-9]{6,}(?P<suffix>\.(?:h5|hdf5))", re.IGNORECASE | re.DOTALL)
_MOST_WITH_A_MASTER = 12
"""A master makes jobs if the lowest module beside it has a higher number."""


@dataclass(frozen=True, slots=True)
class ModuleName:
    """The name of a module's file, `{series}_m{number}{rest}`.

    Parameters
    ----------
    series: the name that all modules share
    number: of the module, from 1 on
    part: of the series, as written; empty if it has none
    rest: of the name, behind the number
    padded: whether numbers below 10 have two digits; None if this number does not tell

    """

    series: str
    number: int
    part: str
    rest: str
    padded: bool | None

    def beside(self, number: int) -> tuple[str, ...]:
        """Return the names that another module of the same part may have, the likelier one first.

        >>> module_of("scan_m12.nxs").beside(1), module_of("scan_m01.nxs").beside(2)
        (('scan_m01.nxs', 'scan_m1.nxs'), ('scan_m02.nxs',))
        """
        forms = {f"{number:02d}" if padded else f"{number}" for padded in self._paddings}
        return tuple(f"{self.series}_m{form}{self.rest}" for form in sorted(forms))

    @property
    def _paddings(self) -> tuple[bool, ...]:
        return (True, False) if self.padded is None else (self.padded,)


def module_of(name: str) -> ModuleName | None:
    """Return what the name of a module's file says, None for every other name.

    >>> module = module_of("scan_00002_m3_part00004.nxs")
    >>> module.series, module.number, module.part
    ('scan_00002', 3, '00004')
    >>> module_of("scan_master.nxs") is None
    True
    """
    match = _MODULE.fullmatch(name)
    if match is None or int(match["number"]) == 0:
        return None
    digits = match["number"]
    padded = None if int(digits) >= 10 else len(digits) == 2  # noqa: PLR2004 - the digits of a number
    return ModuleName(match["series"], int(digits), match["part"] or "", match["rest"], padded)


def makes_jobs(name: str, names: Container[str]) -> bool:
    """Whether the frames of a file are converted from this file, and not from another one of `names` beside it.

    The first module of a Lambda makes the jobs of all, an Eiger's master those of its data files. Where the first is
    missing, the next one does, so that the missing one is reported.

    >>> names = {"a_m1.nxs", "a_m2.nxs", "a_master.nxs", "b_master.h5", "b_data_000001.h5", "c_data_000001.h5"}
    >>> sorted(name for name in names if makes_jobs(name, names))
    ['a_m1.nxs', 'b_master.h5', 'c_data_000001.h5']

    Parameters
    ----------
    name: of the file
    names: of the files in its folder; a set, if there are many

    """
    module = module_of(name)
    if module is not None:
        lower = (each for number in range(1, module.number) for each in module.beside(number))
        return not any(each in names for each in lower)
    data = _EIGER_DATA.fullmatch(name)
    if data is not None:
        return f"{data['series']}_master{data['suffix']}" not in names
    master = _MASTER.fullmatch(name)
    return master is None or not any(each in names for each in _modules_of(master["series"], master["suffix"]))


def _modules_of(series: str, suffix: str) -> list[str]:
    """Return the names that the modules beside a master may have."""
    numbers = [form for number in range(1, _MOST_WITH_A_MASTER + 1) for form in {f"{number}", f"{number:02d}"}]
    parts = ("", "_part00000", "_part00001")
    return [f"{series}_m{number}{part}{suffix}" for number in numbers for part in parts]
