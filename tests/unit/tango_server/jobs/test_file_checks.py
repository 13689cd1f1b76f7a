"""Looks at real files of jobs: what is awaited, what is final, what is in the way of a sidecar."""

import os
import shutil
from pathlib import Path

import pytest

from tango_server.conversion import convert_file
from tango_server.conversion.files.roots import Roots
from tango_server.jobs.file_checks import carry_sidecar_of, observe_source
from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.events import AttemptFailed, Observed, SidecarObserved
from tango_server.messages import FrameRequest
from tango_server.recipe import Recipe
from tests.conftest import DATA
from tests.unit.full_disk import no_file_grows_beyond

links_only = pytest.mark.skipif(os.name == "nt", reason="links take special rights on Windows")


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    (tmp_path / "root").mkdir()
    return Roots.of([(tmp_path / "root").resolve()])


@pytest.fixture
def job(roots: Roots) -> Job:
    """A frame that is converted, with a sidecar that was not carried yet."""
    (root,) = roots.read
    source, output = root / "raw" / "scan" / "a.tif", root / "processed" / "scan" / "a.tif"
    source.parent.mkdir(parents=True)
    shutil.copy(DATA / "qxrd_f32_64.tif", source)
    job = Job("4f3c", FrameRequest(source=str(source), recipe=Recipe.preset("xdi")), source, output, accepted=0.0)
    convert_file(source, job.recipe, output=output, roots=roots, job=job.job_id)
    source.with_name("a.tif.metadata").write_text("[metadata]\nwidth=64\nheight=64\n")
    return job


def test_source_is_reported_with_its_structure(job: Job, roots: Roots) -> None:
    look = observe_source(job, roots)
    assert isinstance(look, Observed)
    assert look.structure is not None
    assert look.structure.state == "complete"


def test_a_file_that_is_not_there_is_awaited(job: Job, roots: Roots) -> None:
    job.source.unlink()
    assert observe_source(job, roots) == Observed("4f3c", None)
    shutil.rmtree(job.source.parent)
    assert observe_source(job, roots) == Observed("4f3c", None)


def test_unreadable_source_is_awaited_and_its_problem_is_named(job: Job, roots: Roots) -> None:
    job.source.unlink()
    job.source.mkdir()
    look = observe_source(job, roots)
    assert isinstance(look, Observed)
    assert "a folder, not a regular file" in look.problem


@links_only
@pytest.mark.parametrize("what", ["raw", "raw/scan", "raw/scan/a.tif"])
def test_a_source_whose_path_became_a_link_fails_at_once(what: str, job: Job, roots: Roots, tmp_path: Path) -> None:
    path = tmp_path / "root" / what
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    look = observe_source(job, roots)
    assert isinstance(look, AttemptFailed)
    assert look.kind == "final"
    assert str(path) in look.reason
    assert "symbolic link" in look.reason


def test_a_sidecar_is_carried_when_it_has_come(job: Job, roots: Roots) -> None:
    assert carry_sidecar_of(job, job.output, roots) == SidecarObserved("4f3c", carried=True)
    assert job.output.with_name("a.tif.metadata").exists()
    job.source.with_name("a.tif.metadata").unlink()
    assert carry_sidecar_of(job, job.output, roots) == SidecarObserved("4f3c", carried=False)


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no limit of the size of files")
def test_full_disk_blocks_the_sidecar_temporarily(job: Job, roots: Roots) -> None:
    with no_file_grows_beyond(4):
        look = carry_sidecar_of(job, job.output, roots)
    assert isinstance(look, SidecarObserved)
    assert (look.carried, look.blocked) == (False, True)
    assert look.problem.startswith("the sidecar could not be copied: ")
    assert str(job.output) in look.problem
    assert carry_sidecar_of(job, job.output, roots).carried


def test_missing_source_is_a_sidecar_problem_that_does_not_block(job: Job, roots: Roots) -> None:
    job.source.unlink()
    look = carry_sidecar_of(job, job.output, roots)
    assert isinstance(look, SidecarObserved)
    assert (look.carried, look.blocked) == (False, False)
    assert "no such file" in look.problem


@links_only
def test_a_sidecar_that_is_a_link_is_final(job: Job, roots: Roots, tmp_path: Path) -> None:
    sidecar = job.source.with_name("a.tif.metadata")
    sidecar.rename(tmp_path / "secret")
    sidecar.symlink_to(tmp_path / "secret")
    look = carry_sidecar_of(job, job.output, roots)
    assert isinstance(look, AttemptFailed)
    assert look.kind == "final"
    assert "the sidecar could not be copied" in look.reason
    assert not job.output.with_name("a.tif.metadata").exists()
