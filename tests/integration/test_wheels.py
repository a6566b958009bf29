# Builds each package's wheel and installs it into an empty environment, as a user would.
# Versions come from requirements/, so that a new release of a dependency can't fail this unannounced.

import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 300
PIP = ["--disable-pip-version-check", "--no-input"]
TOOLS = {"pip", "setuptools"}
HELPER_NEEDS = {"redis", "hiredis", "async-timeout"}

pytestmark = pytest.mark.timeout(LIMIT_SECONDS)


def _run(*command: str | Path) -> str:
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        env=env,
        cwd=tempfile.gettempdir(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS - 60,
    )
    assert done.returncode == 0, f"{command} said:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels by the packages' names, built from the sources here."""
    folder = tmp_path_factory.mktemp("wheels")
    for package in ("helper", "imserver", "operator"):
        _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT / package)
    return {wheel.name.split("-")[0]: wheel for wheel in folder.glob("*.whl")}


@pytest.fixture
def install(tmp_path: Path):
    """Installs wheels into a new environment and answers that environment's folder of programs."""

    def install(*wheels: Path, pins_of: str = "server") -> Path:
        venv.create(tmp_path / "venv", with_pip=True)
        pins = re.findall(
            r"^([a-z0-9.-]+==[^ ]+)", (ROOT / "requirements" / f"{pins_of}.txt").read_text(), re.MULTILINE
        )
        constraints = tmp_path / "constraints.txt"
        constraints.write_text("\n".join(pins))
        programs = tmp_path / "venv" / "bin"
        _run(programs / "python", "-m", "pip", "install", "--quiet", *PIP, "--constraint", constraints, *wheels)
        return programs

    return install


def _installed(programs: Path) -> set[str]:
    listing = _run(programs / "python", "-m", "pip", "list", "--format=freeze", *PIP)
    return {re.split("==| @ ", line)[0].lower().replace("_", "-") for line in listing.split()}


def _files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheels_hold_all_of_the_package_and_nothing_else(wheels):
    for folder, name in (("helper", "imhelper"), ("imserver", "imserver"), ("operator", "imoperator")):
        source = ROOT / folder / "src"
        sources = {
            str(path.relative_to(source))
            for path in (source / name).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        in_wheel = _files(wheels[name])
        assert sources == {entry for entry in in_wheel if ".dist-info/" not in entry}
        assert any(entry.endswith(".dist-info/licenses/LICENSE") for entry in in_wheel)
        assert f"{name}/py.typed" in in_wheel


def test_the_helper_installs_alone(wheels, install):
    programs = install(wheels["imhelper"])
    assert _installed(programs) - TOOLS <= {"imhelper"} | HELPER_NEEDS
    assert {"imhelper", "redis", "hiredis"} <= _installed(programs)
    version = _run(programs / "python", "-c", "import imhelper; print(imhelper.__version__)").strip()
    assert f"imhelper-{version}-" in wheels["imhelper"].name


def test_the_server_installs_with_the_helper_only(wheels, install):
    programs = install(wheels["imhelper"], wheels["imserver"])
    expected = {"imhelper", "imserver", "websockets", "uvloop", "prometheus-client"} | HELPER_NEEDS
    assert _installed(programs) - TOOLS <= expected
    refused = subprocess.run(
        [programs / "imserver"],
        env={"IM_PORT": "zero", "PATH": os.environ["PATH"]},
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert refused.returncode != 0
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert "IM_PORT" in refused.stderr and "zero" in refused.stderr
    version = _run(programs / "python", "-c", "import imserver; print(imserver.__version__)").strip()
    assert f"imserver-{version}-" in wheels["imserver"].name


def test_the_operator_installs_without_the_server(wheels, install):
    programs = install(wheels["imhelper"], wheels["imoperator"], pins_of="operator")
    assert {"kopf", "lightkube"} <= _installed(programs)
    assert "imserver" not in _installed(programs), "the operator runs without the server's package"
    crd = _run(programs / "python", "-m", "imoperator", "crd")
    assert "kind: CustomResourceDefinition" in crd and "imclusters.imcluster.io" in crd
