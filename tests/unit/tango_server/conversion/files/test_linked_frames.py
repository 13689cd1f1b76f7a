"""Frames that are symbolic links into a store, as of git-annex or DVC: named by the link, read from its target."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tango_server.conversion import convert_file
from tango_server.conversion.errors import OutsideRootsError, UnfitPathError
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.sidecar import sidecar_path
from tango_server.jobs.batch import FileSelection, select
from tango_server.jobs.planning import plan
from tango_server.jobs.validation import job_for
from tango_server.recipe import Recipe

pytestmark = pytest.mark.skipif(os.name == "nt", reason="symbolic links need a right on Windows")
RECIPE = Recipe.preset("xdi", rotation=90)
HASH = "SHA256E-s4096--0f3c2a"
SHAPE = (24, 16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a frame and its sidecar in `raw`, both of which lie in a store."""
    root = tmp_path.resolve() / "root"
    store = root / ".git" / "annex"
    store.mkdir(parents=True)
    (root / "raw").mkdir()
    frame = store / HASH
    tifffile.imwrite(frame, np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE))
    sidecar_path(frame).write_text("[metadata]\nwidth=16\n[centerfinder]\ncenterX=3\ncenterY=10\n")
    (root / "raw" / "a-00001.tif").symlink_to(Path("..") / ".git" / "annex" / HASH)
    (root / "raw" / "a-00001.tif.metadata").symlink_to(sidecar_path(frame))
    return root


def frame_of(root: Path) -> Path:
    return root / "raw" / "a-00001.tif"


def outside(root: Path) -> Path:
    path = root.parent / "secret.tif"
    tifffile.imwrite(path, np.zeros(SHAPE, np.float32))
    return path


def converts(report_output: str | None, root: Path) -> None:
    output = root / "processed" / "a-00001.tif"
    assert report_output == str(output)
    np.testing.assert_array_equal(tifffile.imread(output), np.rot90(tifffile.imread(frame_of(root))).astype(np.int32))
    assert "centerX=10\n" in sidecar_path(output).read_text()
    assert frame_of(root).is_symlink()


@pytest.mark.parametrize("roots", [False, True], ids=["offline", "roots"])
def test_the_output_is_named_after_the_link_and_the_sidecar_is_found(root: Path, roots: bool) -> None:
    report = (
        convert_file(frame_of(root), RECIPE, roots=Roots.of([root])) if roots else convert_file(frame_of(root), RECIPE)
    )
    assert (report.outcome, report.sidecar) == ("converted", "carried")
    converts(report.output, root)


def test_a_server_takes_the_link_and_reads_what_it_leads_to(root: Path) -> None:
    roots = Roots.of([root / "raw", root / ".git"], write=[root / "processed"])
    job = job_for({"source": str(frame_of(root))}, RECIPE, roots, now=0.0)
    assert (job.source, job.output) == (frame_of(root), root / "processed" / "a-00001.tif")
    own = Roots(read=(root / "raw",), write=roots.write, every=roots.read)  # as a job of one root has them
    converts(convert_file(job.source, RECIPE, output=job.output, roots=own).output, root)


def test_link_out_of_roots_is_refused_on_submission_and_on_open(root: Path) -> None:
    link, roots = frame_of(root), Roots.of([root])
    accepted = job_for({"source": str(link)}, RECIPE, roots, now=0.0)
    link.unlink()
    link.symlink_to(outside(root))
    refused = job_for({"source": str(link)}, RECIPE, roots, now=0.0)
    assert refused.refusal is not None
    assert "outside the folders" in refused.refusal.reason
    with pytest.raises(OutsideRootsError):
        convert_file(accepted.source, RECIPE, output=accepted.output, roots=roots)
    assert not (root / "processed").exists()


def test_a_link_into_a_private_folder_is_refused(root: Path) -> None:
    roots = Roots.of([root], private=[root / ".git"])
    with pytest.raises(OutsideRootsError):
        roots.frame(frame_of(root))
    with pytest.raises(OutsideRootsError):
        convert_file(frame_of(root), RECIPE, output=root / "processed" / "a.tif", roots=roots)


@pytest.mark.parametrize("roots", [False, True], ids=["offline", "roots"])
def test_no_link_is_converted_in_place(root: Path, roots: bool) -> None:
    before = frame_of(root).read_bytes()
    recipe = Recipe.model_validate({**RECIPE.model_dump(mode="json"), "output": {"mode": "in_place"}})
    with pytest.raises(UnfitPathError, match=r"a-00001\.tif: .*symbolic link"):
        convert_file(frame_of(root), recipe, roots=Roots.of([root]) if roots else Roots())
    refused = job_for({"source": str(frame_of(root))}, recipe, Roots.of([root]), now=0.0)
    assert refused.refusal is not None
    assert "symbolic link" in refused.refusal.reason
    assert frame_of(root).is_symlink()
    assert frame_of(root).read_bytes() == before


def test_no_output_takes_the_place_of_what_a_link_leads_to(root: Path) -> None:
    output = {"folder": str(root / ".git" / "annex"), "template": HASH}
    recipe = Recipe.model_validate({**RECIPE.model_dump(mode="json"), "output": output})
    store = root / ".git" / "annex" / f"{HASH}.tif"
    (root / ".git" / "annex" / HASH).rename(store)
    frame_of(root).unlink()
    frame_of(root).symlink_to(store)
    (planned,) = plan([frame_of(root)], recipe)
    assert "the source itself" in planned.problem


def test_a_folder_of_links_is_selected_by_their_names(root: Path) -> None:
    loop = root / "raw" / "loop.tif"
    loop.symlink_to(loop.name)
    assert select([root / "raw"], FileSelection()) == [frame_of(root)]
    assert select([frame_of(root)], FileSelection()) == [frame_of(root)]
