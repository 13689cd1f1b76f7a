"""Looks at real files of jobs: what is awaited, what is final, what is in the way of a sidecar."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tango_server.conversion import convert_file
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.formats import OwnProcessNeededError
from tango_server.jobs.file_checks import carry_sidecar_of, observe_source
from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.events import AttemptFailed, Observed, SidecarObserved
from tango_server.messages import FrameRequest
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import DARK_FACTS, Corrections
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


def test_source_is_reported_with_its_state(job: Job, roots: Roots) -> None:
    look = observe_source(job, roots)
    assert isinstance(look, Observed)
    assert look.state is not None
    assert look.state.state == "complete"


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


@pytest.mark.parametrize("is_dark", [False, True])
def test_hdf5_is_not_opened_in_a_process_that_may_not_crash(job: Job, roots: Roots, is_dark: bool) -> None:
    """Whatever was known of the file a moment before: a detector may create it just now."""
    file = job.source.with_name("new.h5")
    of_it = job if is_dark else replace(job, request=job.request.model_copy(update={"source": str(file)}), source=file)
    observe_source(of_it, roots, (file,), may_crash=False)  # it is not there yet
    file.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(OwnProcessNeededError):
        observe_source(of_it, roots, (file,), may_crash=False)
    assert isinstance(observe_source(of_it, roots, (file,)), Observed)


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


def corrected(job: Job, darks: tuple[Path, ...] = (), **corrections: object) -> Job:
    """Return the job with these corrections and with darks of its run."""
    given = Corrections.model_validate({**corrections, **({"dark": tuple(map(str, darks))} if darks else {})})
    recipe = Recipe.preset("xdi", corrections=given)
    request = job.request.model_copy(update={"recipe": recipe, "metadata": {DARK_FACTS: {}}})
    return replace(job, request=request, corrections=given)


def observed(job: Job, roots: Roots) -> Observed:
    look = observe_source(job, roots, job.awaited_darks)
    assert isinstance(look, Observed), look
    return look


@pytest.mark.parametrize(
    ("corrections", "lacks"),
    [({"saturation": 60000}, True), ({"dark": "run"}, True), ({"mask": "/m.tif"}, False), ({"flat": "/f.tif"}, False)],
)
def test_dark_and_saturation_need_the_sidecar_of_a_qxrd_frame(
    corrections: dict[str, object], lacks: bool, job: Job, roots: Roots
) -> None:
    one = corrected(job, **corrections)
    assert not observed(one, roots).lacks_sidecar
    job.source.with_name("a.tif.metadata").unlink()
    assert observed(one, roots).lacks_sidecar is lacks
    shutil.copy(DATA / "fabio_int32_64.tif", job.source)
    assert not observed(one, roots).lacks_sidecar, "no sidecar follows a frame of another program"


def test_darks_of_a_run_are_checked_with_their_sidecars_once_the_frame_is_there(job: Job, roots: Roots) -> None:
    folder = job.source.parent
    absent, unfinished, whole, strange = (folder / f"{name}.tif" for name in ("absent", "unfinished", "whole", "other"))
    shutil.copy(DATA / "unfinished_half_ifd.tif", unfinished)
    shutil.copy(DATA / "qxrd_f32_64.tif", whole)
    shutil.copy(DATA / "fabio_int32_64.tif", strange)
    one = corrected(job, (absent, unfinished, whole, strange))
    darks = observed(one, roots).darks
    assert [dark.path for dark in darks] == [absent, unfinished, whole, strange]
    assert [dark.state and dark.state.state for dark in darks] == [None, "incomplete", "complete", "complete"]
    assert [dark.lacks_sidecar for dark in darks[2:]] == [True, False]
    whole.with_name("whole.tif.metadata").write_text("[metadata]\nwidth=64\n")
    assert not observed(one, roots).darks[2].lacks_sidecar
    job.source.unlink()
    assert observed(one, roots) == Observed("4f3c", None)


def test_masters_that_the_recipe_names_are_not_awaited(job: Job, roots: Roots) -> None:
    one = corrected(job, (job.source.with_name("dark.tif"), job.source.with_name("dark2.tif")))
    named = replace(one, request=one.request.model_copy(update={"metadata": {}}))
    assert observed(named, roots).darks == ()


@links_only
def test_a_dark_whose_path_became_a_link_fails_at_once(job: Job, roots: Roots, tmp_path: Path) -> None:
    dark = job.source.with_name("dark.tif")
    dark.symlink_to(tmp_path / "elsewhere.tif")
    look = observe_source(corrected(job, (dark,)), roots, (dark,))
    assert isinstance(look, AttemptFailed)
    assert look.kind == "final"
    assert str(dark) in look.reason
