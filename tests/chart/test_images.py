# Dockerfile, Makefile, skaffold.yaml and the charts speak of the same images, versions and users.
# test_image_builds.py builds one of them, the end-to-end tests run all.

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


def test_skaffold_and_make_deploy_install_the_same():
    """Skaffold itself is not run by any test: what it would be told is held to what is."""
    config = yaml.safe_load(docs.read("skaffold.yaml"))
    releases = config["deploy"]["helm"]["releases"]
    told = {(r["name"], r["chartPath"], r["namespace"], r["createNamespace"]) for r in releases}
    made = re.findall(
        r"helm upgrade --install (\S+) (\S+) --namespace (\S+)( --create-namespace)?", docs.read("Makefile")
    )
    assert told == {(name, chart, namespace, bool(create)) for name, chart, namespace, create in made}
    forwarded = {(f["resourceName"], f["localPort"], f["port"]) for f in config["portForward"]}
    readme = re.findall(r"port-forward svc/(\S+) (\d+):(\d+)", docs.section(docs.read("README.md"), "## On Kubernetes"))
    assert forwarded == {(service, int(local), int(port)) for service, local, port in readme}
    values = re.findall(r"image_args,(\S+),(\S+)\)", docs.read("Makefile"))
    set_by_skaffold = {path.rpartition(".")[0] for r in releases for path in r["setValueTemplates"]}
    assert {f"{value}.image" for value, _ in values} == set_by_skaffold
    assert {target for _, target in values} == set(TARGETS)


def test_compose_runs_the_same_image():
    services = yaml.safe_load(docs.read("deploy/compose.yaml"))["services"]
    builds = [service["build"] for service in services.values() if "build" in service]
    assert builds == [{"context": "..", "target": "imserver"}] * 3
    # What its health check runs is on the image's path.
    assert services["im-1"]["healthcheck"]["test"][:2] == ["CMD", "python"]
    assert "ENV PATH=/app/bin:$PATH" in _last_stages()["base"]


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
