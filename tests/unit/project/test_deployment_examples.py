"""The files that put a server into service name only what there is, and agree with each other."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import click
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from tango_server.device.property_lines import from_lines
from tango_server.jobs import runner
from tango_server.settings import Settings, read_configuration
from tests.deployment_files import (
    COMPOSE_FILES,
    CONFIGURATION_FILE,
    DEPLOYMENT,
    DOCKERFILE,
    PROJECT,
    UNITS,
    compose,
    example_environment,
    petif_commands,
    understood,
    unit,
    windows_service,
)

CONFIGURATION = read_configuration(CONFIGURATION_FILE)
PROMETHEUS = PROJECT / "examples" / "prometheus"


def guide(name: str) -> str:
    return (PROJECT / "docs" / "how-to" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", UNITS)
def test_unit_may_write_what_the_configuration_writes_only(name: str) -> None:
    service = unit(name)["Service"]
    assert (service["User"], service["ProtectSystem"], service["NoNewPrivileges"]) == ("petif", "strict", "yes")
    assert CONFIGURATION["state_dir"] == f"/var/lib/{service['StateDirectory']}"
    writable = [PurePosixPath(path) for path in service["ReadWritePaths"].split()]
    for root in CONFIGURATION["write_roots"]:
        assert any(PurePosixPath(root).is_relative_to(path) for path in writable), root
    mounted = [PurePosixPath(path) for path in unit(name)["Unit"]["RequiresMountsFor"].split()]
    for root in [*CONFIGURATION["read_roots"], *CONFIGURATION["write_roots"], CONFIGURATION["state_dir"]]:
        assert any(PurePosixPath(root).is_relative_to(path) for path in mounted), root
    assert (service["KillMode"], service["Restart"]) == ("mixed", "on-failure")
    assert float(service["TimeoutStopSec"]) > 4 * runner._CLOSE_TIMEOUT, "the server ends its workers itself"
    others = [unit(other)["Service"] for other in UNITS]
    differing = {key for other in others for key in {*service, *other} if service.get(key) != other.get(key)}
    assert differing == {"ExecStart", "Environment"}, "only how the server is started"


@pytest.mark.parametrize(("name", "words"), petif_commands())
def test_command_in_a_file_is_understood_by_petif(name: str, words: Sequence[str]) -> None:
    context = understood(words)
    if context.info_name in {"serve", "register"}:
        assert context.params["config"] == CONFIGURATION_FILE, f"{name} reads no configuration"


@pytest.mark.parametrize("wrong", ["serve --prot 1", "serve --port one", "sreve"])
def test_wrong_command_would_be_noticed(wrong: str) -> None:
    with pytest.raises(click.UsageError):
        understood(wrong.split())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_a_unit(name: str, tmp_path: Path) -> None:
    """Its program is not installed here; everything else is as in the example."""
    text = (DEPLOYMENT / name).read_text(encoding="utf-8")
    program = unit(name)["Service"]["ExecStart"].split()[0]
    (tmp_path / name).write_text(text.replace(program, sys.executable), encoding="utf-8")
    instance = str(tmp_path / name.replace("@.", "@p02."))
    (tmp_path / name).rename(instance)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", instance], capture_output=True, text=True, check=False
    )
    complaints = [line for line in verified.stderr.splitlines() if "petif" in line]
    assert (verified.returncode, complaints) == (0, [])


@pytest.mark.skipif(os.name == "nt", reason="/gpfs is no absolute path on Windows")
def test_dsconfig_file_and_configuration_file_agree() -> None:
    tree = json.loads((DEPLOYMENT / "dsconfig.json").read_text(encoding="utf-8"))
    devices = tree["servers"]["PETifConverter"]["p02"]["PETifConverter"]
    lines = devices["p02/petif/1"]["properties"]
    assert set(lines) == set(CONFIGURATION) <= set(Settings.model_fields)
    assert Settings.merged(from_lines(lines)) == Settings.merged(CONFIGURATION)


def test_guides_name_each_file() -> None:
    text = "".join(map(guide, ("deploy.md", "windows.md", "observe.md")))
    files = [path.name for path in (*DEPLOYMENT.rglob("*"), *PROMETHEUS.iterdir()) if path.is_file()]
    assert not [name for name in files if not name.endswith(".dockerignore") and name not in text]


def test_compose_files_follow_the_specification(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.json" for name in COMPOSE_FILES]
    for name, path in zip(COMPOSE_FILES, paths, strict=True):
        path.write_text(json.dumps(compose(name, example_environment())))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *map(str, paths)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_file_serves_this_host_only_without_rights(name: str) -> None:
    tree = compose(name, example_environment())
    assert set(example_environment()) >= set(re.findall(r"\$\{(\w+)", (DEPLOYMENT / "docker" / name).read_text()))
    for title, service in tree["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), title
        for volume in service.get("volumes", ()):
            if volume["type"] == "volume":
                assert volume["source"] in tree["volumes"]
        for before in service.get("depends_on", ()):
            assert before in tree["services"]
        assert set(service.get("networks", ())) <= set(tree.get("networks", ()))
    server = tree["services"]["converter"]
    assert {"127.0.0.1"} == {word for word in server["command"] if re.fullmatch(r"[\d.]+\.[\d.]+", word)}
    assert (server["read_only"], server["cap_drop"], server["restart"]) == (True, ["ALL"], "unless-stopped")
    assert float(server["stop_grace_period"].removesuffix("s")) > 4 * runner._CLOSE_TIMEOUT
    targets = {volume["target"]: volume for volume in server["volumes"]}
    assert CONFIGURATION["state_dir"] in targets
    for root in [*CONFIGURATION["read_roots"], *CONFIGURATION["write_roots"]]:
        assert any(PurePosixPath(root).is_relative_to(path) for path in targets), root
    for path in set(targets) - {CONFIGURATION["state_dir"], "/etc/petif/petif.toml"}:
        assert targets[path]["source"] == path, "clients name frames by the paths that they see"


@pytest.mark.parametrize("missing", ["PETIF_DATA", "PETIF_DATABASE_PASSWORD"])
def test_variable_without_a_default_has_to_be_set(missing: str) -> None:
    variables = example_environment()
    del variables[missing]
    with pytest.raises(KeyError, match=missing):
        compose("compose.yaml", variables)


def test_images_are_built_of_existing_files_without_rights(tmp_path: Path) -> None:
    parser = DockerfileParser(path=str(tmp_path), fileobj=None)
    parser.content = DOCKERFILE.read_text(encoding="utf-8")
    stages: dict[str, list[dict[str, Any]]] = {}
    for step in parser.structure:
        if step["instruction"] == "FROM":
            stages[step["value"].split(" AS ")[1]] = []
        elif step["instruction"] != "COMMENT":
            stages[list(stages)[-1]].append(step)
    for name in COMPOSE_FILES:
        for title, service in compose(name, example_environment())["services"].items():
            build = service["build"]
            assert build["target"] in stages, title
            assert (DEPLOYMENT / "docker" / build["context"]).resolve() == PROJECT
            assert PROJECT / build["dockerfile"] == DOCKERFILE
            arguments = {
                step["value"].split("=")[0] for step in stages[build["target"]] if step["instruction"] == "ARG"
            }
            assert set(build.get("args", {})) == arguments, title
    for stage, user in {"server": "petif", "database": "tango"}.items():
        assert [step["value"] for step in stages[stage] if step["instruction"] == "USER"] == [user]
        (command,) = (step["value"] for step in stages[stage] if step["instruction"] == "CMD")
        assert json.loads(command)
    for source in re.findall(r"--from=(\w+)", parser.content):
        assert source in stages
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    for kept in (line[1:] for line in ignored if line.startswith("!")):
        assert (PROJECT / kept).exists()
    (install,) = re.findall(r"'/source\[([\w,]+)\]'", parser.content)
    assert "server" in install.split(",")


def test_windows_service_is_the_one_of_the_guide() -> None:
    service = windows_service()
    assert service.tag == "service"
    assert {"id", "name", "executable", "arguments", "stoptimeout", "onfailure"} <= {entry.tag for entry in service}
    for path in (service.findtext("executable"), service.findtext("workingdirectory")):
        assert path
        assert PureWindowsPath(path).is_absolute()
        assert path in guide("windows.md")
    seconds = float((service.findtext("stoptimeout") or "").removesuffix(" sec"))
    assert seconds > 4 * runner._CLOSE_TIMEOUT
    account = service.find("serviceaccount")
    assert account is not None
    assert account.find("password") is None
    assert (account.findtext("user") or "").endswith("$"), "only a group-managed account has no password"


def test_prometheus_finds_its_rules_and_the_server() -> None:
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    for name in configuration["rule_files"]:
        for group in yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                assert {"alert", "expr", "annotations"} <= set(rule)
                assert rule["annotations"]["summary"].endswith("."), rule["alert"]
    (job,) = configuration["scrape_configs"]
    (targets,) = (place["targets"] for place in job["static_configs"])
    assert job.get("metrics_path", "/metrics") == "/metrics"
    port = re.findall(r"^metrics_port = (\d+)", guide("observe.md"), re.MULTILINE)
    assert [target.partition(":")[2] for target in targets] == port


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
@pytest.mark.parametrize(("what", "name"), [("config", "prometheus.yml"), ("rules", "rules.yml")])
def test_promtool_accepts_the_files(what: str, name: str) -> None:
    subprocess.run(["promtool", "check", what, str(PROMETHEUS / name)], check=True)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
def test_promtool_accepts_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    dashboard = json.loads((PROMETHEUS / "dashboard.json").read_text(encoding="utf-8"))
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [{"record": f"panel:{i}", "expr": text.replace("$__rate_interval", "1m")} for i, text in enumerate(texts)]
    path = tmp_path / "dashboard.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    subprocess.run(["promtool", "check", "rules", str(path)], check=True)
