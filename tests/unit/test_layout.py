# Rules about the repository itself that no linter knows: what must be there, and what must never be committed.
# Forbidden texts are put together from pieces, so that this file does not match itself.

import json
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"helper": "imhelper", "imserver": "imserver", "operator": "imoperator"}
SOURCE_SUFFIXES = (".py", ".js", ".ts", ".lua", ".c", ".h")
COMMENT_STARTS = {
    ".py": ("#", '"""', 'r"""'),
    ".js": ("//", "/*"),
    ".ts": ("//", "/*"),
    ".lua": ("--",),
    ".c": ("//", "/*"),
    ".h": ("//", "/*"),
}
MOST_LINES = 450

REGISTRIES = ("py" + "pi", "python" + "hosted", "npm" + "js", "go" + "lang", "cra" + "tes", "ma" + "ven", "deb" + "ian")
REGISTRY = re.compile(r"https?://[a-z0-9.-]*(" + "|".join(REGISTRIES) + r")[a-z0-9.-]*\.(org|io|com|net)")
MACHINE_PATHS = ("/wo" + "rk/", "/fa" + "rm/", "/ro" + "ot/.", "/tmp/te" + "am", "/opt/whe" + "els")
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.}])(" + "|".join(map(re.escape, MACHINE_PATHS)) + ")")
LEFT_OPEN = re.compile(r"\b(TO" + "DO|FIX" + "ME|XX" + r"X)\b")


@cache
def _tracked() -> tuple[Path, ...]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    if listing.returncode != 0:
        pytest.skip(f"not a git checkout: {listing.stderr.strip()}")
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


@cache
def _text(path: Path) -> str | None:
    """What a tracked file says; None for one that is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def _matches(pattern: re.Pattern[str], *suffixes: str) -> list[str]:
    found = []
    for path in _tracked():
        text = _text(path)
        if text is None or (suffixes and path.suffix not in suffixes):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    return found


def _packages() -> list[tuple[Path, str]]:
    return [(ROOT / folder, name) for folder, name in PACKAGES.items() if (ROOT / folder / "pyproject.toml").exists()]


def test_the_operators_folder_never_hides_the_standard_library():
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_no_registry_is_named():
    assert _matches(REGISTRY) == []


def test_no_path_of_a_machine_is_committed():
    assert _matches(MACHINE_PATH) == []


def test_the_patterns_find_what_they_are_for():
    assert REGISTRY.search("https://files." + REGISTRIES[1] + ".org/packages/x")
    assert all(MACHINE_PATH.search(f'"{path}x"') for path in MACHINE_PATHS)
    assert LEFT_OPEN.search("# TO" + "DO: later")


def test_nothing_is_left_open_in_the_sources():
    assert _matches(LEFT_OPEN, *SOURCE_SUFFIXES) == []


def test_source_files_stay_short():
    lengths = {path: len((_text(path) or "").splitlines()) for path in _tracked() if path.suffix in SOURCE_SUFFIXES}
    assert {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


def test_source_files_open_with_what_they_are_for():
    silent = []
    for path in _tracked():
        if path.suffix not in SOURCE_SUFFIXES:
            continue
        lines = [line for line in (_text(path) or "").splitlines() if line.strip() and not line.startswith("#!")]
        if not lines or not lines[0].startswith(COMMENT_STARTS[path.suffix]):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_every_package_is_typed_licensed_and_described():
    licence = (ROOT / "LICENSE").read_text()
    for folder, name in _packages():
        assert (folder / "src" / name / "py.typed").exists(), f"{name} has no py.typed"
        assert (folder / "LICENSE").read_text() == licence, f"{name}'s LICENSE is not the repository's"
        assert (folder / "README.md").read_text().startswith(f"# {name}\n")


def test_all_parts_have_one_version():
    versions = {}
    for folder, name in _packages():
        text = (folder / "src" / name / "__init__.py").read_text()
        found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
        assert found is not None, f"{name} does not tell its version"
        versions[name] = found[1]
    versions["clients/js"] = json.loads((ROOT / "clients" / "js" / "package.json").read_text())["version"]
    assert len(set(versions.values())) == 1, versions
    assert f"## {versions['imhelper']} " in (ROOT / "CHANGELOG.md").read_text()


def test_the_helper_depends_on_redis_py_and_its_hiredis_only():
    project = tomllib.loads((ROOT / "helper" / "pyproject.toml").read_text())["project"]
    assert [re.split(r"[<>=\[]", dependency)[0] for dependency in project["dependencies"]] == ["redis", "hiredis"]
    assert "optional-dependencies" not in project


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_requirements_are_pinned_and_hashed(path):
    entries = path.read_text().replace("\\\n", " ").splitlines()
    assert entries
    for entry in entries:
        assert re.match(r"^[a-z0-9.-]+==\S+ ", entry), f"not pinned: {entry[:80]}"
        assert "--hash=sha256:" in entry, f"not hashed: {entry[:80]}"
