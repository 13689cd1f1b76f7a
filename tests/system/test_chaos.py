"""The short form of the chaos: see `tests.chaos` for the long one."""

import os
from pathlib import Path

import pytest

from tests.chaos.plan import Kind
from tests.chaos.run import run_chaos
from tests.chaos.scale import short

_SEED = 37  # where disks can be mounted, its wall clock jumps ahead by a year, and the server starts anew
_ONLY_WITH_MOUNTS = {Kind.FILL_OUTPUT, Kind.FILL_STATE, Kind.READ_ONLY}


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="the disturbances are POSIX signals and mounts")
def test_chaos_loses_no_frame_and_converts_none_twice(tmp_path: Path) -> None:
    told: list[str] = []
    account = run_chaos(_SEED, short(), tmp_path, told.append)
    assert account.clean, "\n".join([*told, str(account)])
    assert account.accepted == account.written == short().frames
    assert account.outcomes["failed"] >= account.unfinished
    assert account.sums >= short().frames // 20
    assert account.corrected >= short().frames // 10
    assert set(account.skipped) <= _ONLY_WITH_MOUNTS
    assert all(account.disturbances[kind] >= 1 for kind in Kind if kind not in account.skipped)
