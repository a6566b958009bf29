# Dockerfile, Makefile, skaffold.yaml and the charts speak of the same images, versions and users.
# Building them is for the end-to-end tests.

import re
import tomllib

import yaml

from tests.chart.charts import CHARTS, DEMO, MAIN, objects, pod_specs
from tests.support import docs

DOCKERFILE = docs.read("Dockerfile")
TARGETS = ("imserver", "operator", "webchat")


def _last_stages() -> dict[str, str]:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {stage.split()[2]: stage for stage in stages}


def test_there_is_a_target_for_each_image():
    stages = _last_stages()
    for target in TARGETS:
        assert stages[target].startswith(f"base AS {target}\n")
        assert "org.opencontainers.image.title" in stages[target]
    assert f"TARGETS := {' '.join(TARGETS)}" in docs.read("Makefile")


def test_what_runs_is_another_user_and_holds_no_builder():
    assert re.search(r"^USER 10001:10001$", _last_stages()["base"], re.MULTILINE)
    for target in TARGETS:
        copied = re.findall(r"COPY --from=(\S+) (\S+) (\S+)", _last_stages()[target])
        assert copied == [(f"{target}-build", "/app", "/app")]
        assert "RUN" not in _last_stages()[target]


def test_the_base_image_can_be_chosen():
    assert "ARG PYTHON_IMAGE=python:3.13-slim-bookworm" in DOCKERFILE
    assert DOCKERFILE.count("FROM ${PYTHON_IMAGE}") == 2


def test_everything_is_installed_from_hashes():
    for line in re.findall(r"pip (?:--python \S+ )?install ([^\n\\]*)", DOCKERFILE):
        assert "--require-hashes" in line or "--no-index" in line, line


def test_the_user_of_the_images_is_the_charts():
    for where, spec in pod_specs(objects(MAIN) + objects(DEMO)):
        if "valkey" not in where:
            assert spec["securityContext"]["runAsUser"] == 10001, where


def test_skaffold_builds_what_the_charts_install():
    config = yaml.safe_load(docs.read("skaffold.yaml"))
    built = {a["image"]: a["docker"]["target"] for a in config["build"]["artifacts"]}
    assert built == {f"imcluster/{target}": target for target in TARGETS}
    values = {chart: yaml.safe_load((CHARTS / chart / "values.yaml").read_text()) for chart in (MAIN, DEMO)}
    for release in config["deploy"]["helm"]["releases"]:
        chart = release["chartPath"].rpartition("/")[2]
        for path, template in release["setValueTemplates"].items():
            part, _, field = path.split(".")
            assert values[chart][part]["image"][field] is not None
            artifact = values[chart][part]["image"]["repository"]
            kind = {"repository": "REPO", "tag": "TAG"}[field]
            assert template == f"{{{{.IMAGE_{kind}_{artifact.replace('/', '_')}}}}}"


def test_charts_carry_the_packages_version():
    version = re.search(r'^__version__ = "(.+)"$', docs.read("operator/src/imoperator/__init__.py"), re.MULTILINE)
    assert version is not None
    assert tomllib.loads(docs.read("operator/pyproject.toml"))["project"]["name"] == "imoperator"
    for chart in (MAIN, DEMO):
        head = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
        assert head["appVersion"] == version[1]
        assert re.fullmatch(r"\d+\.\d+\.\d+", head["version"])
    assert f"TAG ?= {version[1]}" in docs.read("Makefile")
    assert f"ARG VERSION={version[1]}" in DOCKERFILE
