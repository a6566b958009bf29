# `make images` with a real builder, and what is in the image that comes out: its configuration and its files.
# Skipped where there is no builder, or where it does not have the base image (PYTHON_IMAGE, or the Dockerfile's).

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support import docs

# How each builder writes an image into a file in Docker's format.
SAVE = {
    "docker": ("save", "--output", "{file}", "{image}"),
    "podman": ("save", "--quiet", "--format", "docker-archive", "--output", "{file}", "{image}"),
    "buildah": ("push", "--quiet", "{image}", "docker-archive:{file}"),
}
# Of this process alone: another worker may build at the same time.
IMAGES, TAG, TARGET = f"localhost/imcluster-test-{os.getpid()}", "9.8.7", "imserver"
BUILDERS = r"(gcc|g\+\+|cc|cc1|c\+\+|ld|as|make|pip3?(\.\d+)?)"
LIMIT_SECONDS = 600

pytestmark = pytest.mark.timeout(LIMIT_SECONDS + 60)


class Image(NamedTuple):
    """What `make images` printed, the image's configuration, and the paths of its files."""

    printed: str
    config: dict[str, Any]
    files: set[str]


def _run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=docs.ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


def _engine() -> str:
    """A builder that has the base image."""
    default = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", docs.read("Dockerfile"), re.MULTILINE)
    assert default is not None
    base = os.environ.get("PYTHON_IMAGE") or default[1]
    there = [engine for engine in SAVE if shutil.which(engine)]
    if not there:
        pytest.skip(f"none of {', '.join(SAVE)} on this machine")
    for engine in there:
        if _run(engine, "images", "--quiet", base).stdout.strip():
            return engine
    pytest.skip(f"no base image: {there[0]} pull {base}, or name another one by PYTHON_IMAGE")


def _files(archive: tarfile.TarFile, layers: list[str]) -> set[str]:
    """The paths that the layers leave, with their whiteouts applied."""
    left: set[str] = set()
    for name in layers:
        data = archive.extractfile(name)
        assert data is not None
        with tarfile.open(fileobj=io.BytesIO(data.read())) as layer:
            paths = [member.name.removeprefix("./") for member in layer]
        for path in paths:
            folder, _, last = path.rpartition("/")
            if last.startswith(".wh."):
                gone = f"{folder}/{last.removeprefix('.wh.')}"
                left = {one for one in left if one != gone and not one.startswith(f"{gone}/")}
        left |= {path for path in paths if not path.rpartition("/")[2].startswith(".wh.")}
    return left


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    engine = _engine()
    name = f"{IMAGES}/{TARGET}:{TAG}"
    options = (f"ENGINE={engine}", f"IMAGES={IMAGES}", f"TAG={TAG}", f"TARGETS={TARGET}")
    # Without user namespaces, as in a container of CI, buildah can't isolate its steps but by chroot.
    done = _run("make", "--no-print-directory", "images", *options, BUILDAH_ISOLATION="chroot")
    assert done.returncode == 0, done.stdout + done.stderr
    file = tmp_path_factory.mktemp("image") / "image.tar"
    saved = _run(engine, *(part.format(file=file, image=name) for part in SAVE[engine]))
    _run(engine, "rmi", name)
    assert saved.returncode == 0, saved.stderr
    return _read(done.stdout, file)


def _read(printed: str, file: Path) -> Image:
    with tarfile.open(file) as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        config = json.load(archive.extractfile(manifest["Config"]) or io.BytesIO())
        return Image(printed, config["config"], _files(archive, manifest["Layers"]))


def test_the_size_is_printed(image):
    assert re.search(rf"^{IMAGES}/{TARGET}\s+{TAG}\s.*\b[\d.]+ ?MB", image.printed, re.MULTILINE), image.printed


def test_it_is_run_by_a_number_that_is_not_roots(image):
    assert image.config["User"] == "10001:10001"


def test_its_labels_tell_what_it_is_and_what_it_was_made_of(image):
    revision = _run("git", "rev-parse", "HEAD").stdout.strip()
    prefix = "org.opencontainers.image."
    told = {k.removeprefix(prefix): v for k, v in image.config["Labels"].items() if k.startswith(prefix)}
    expected = {"title": TARGET, "version": TAG, "revision": revision, "licenses": "Apache-2.0", "vendor": "ImCluster"}
    assert told | expected == told
    assert told["description"]


def test_it_has_no_health_check_and_starts_the_server(image):
    assert not image.config.get("Healthcheck")
    assert image.config["Entrypoint"] == ["/app/bin/python", "-m", "imserver"]
    assert set(image.config["ExposedPorts"]) == {"6001/tcp", "9600/tcp"}


def test_it_holds_the_program_compiled_and_nothing_to_build_with(image):
    assert any(re.search(r"^app/lib/python3\.\d+/site-packages/imserver/__main__\.py$", f) for f in image.files)
    assert any(re.search(r"site-packages/imserver/__pycache__/__main__\.cpython-\d+\.pyc$", f) for f in image.files)
    builders = [f for f in image.files if re.search(rf"(^|/)s?bin/{BUILDERS}$", f)]
    assert builders == []
    assert [f for f in image.files if re.search(r"(site|dist)-packages/pip/", f)] == []
    assert [f for f in image.files if re.search(r"^app/.*/(setuptools|wheel|hatchling|ensurepip)/", f)] == []


def test_it_holds_no_cache_nor_what_it_was_built_from(image):
    assert [f for f in image.files if re.search(r"/\.cache/|^(src|tools|wheels)/|^app/.*\.whl$", f)] == []
