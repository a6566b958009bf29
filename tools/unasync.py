"""Generates the blocking form of imhelper from its asyncio source, line by line, as encode/httpcore does.
`python tools/unasync.py` writes; with `--check` it only tells what has drifted, and ends with 1 if anything has."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "helper" / "src" / "imhelper"

# Single files beside whole folders; every other file of a generated folder is removed.
FILES = {"_backend/_discover_aio.py": "_backend/_discover_blocking.py"}
FOLDERS = {"_async": "_sync"}

SUBSTITUTIONS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\basync (def|with|for)\b", r"\1"),
        (r"\bawait ", ""),
        (r"\bAsyncIterator\b", "Iterator"),
        (r"\bAsyncGenerator\b", "Generator"),
        (r"\bStopAsyncIteration\b", "StopIteration"),
        (r"\b__(aenter|aexit|aiter|anext)__\b", lambda found: f"__{found.group(1)[1:]}__"),
        (r" +# noqa: ASYNC\d+.*", ""),
        (r"\b(_\w+)_aio\b", r"\1_blocking"),
        (r"\b_backend\.aio\b", "_backend.blocking"),
        (r"\b_backend import aio\b", "_backend import blocking"),
        (r"\bThe blocking form is generated from this file by tools/unasync\.py\.", "{mark}"),
    )
]
MARK = "Generated from {source} by tools/unasync.py: change that file, not this one."


def blocking_form(text: str, source: str) -> str:
    """The blocking form of one asyncio module."""
    for pattern, replacement in SUBSTITUTIONS:
        text = pattern.sub(replacement, text)
    return text.replace("{mark}", MARK.format(source=source))


def formatted(text: str, path: Path) -> str:
    """The text as ruff wants it: names sort anew, lines get shorter, and a plain loop may become `yield from`."""
    fixes = ["check", "--fix-only", "--unsafe-fixes", "--select", "I,UP028", "--quiet"]
    for command in (fixes, ["format", "--quiet"]):
        arguments = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(path), "-"]
        text = subprocess.run(arguments, input=text, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    return text


def wanted() -> dict[Path, str]:
    """Every generated file and what must be in it."""
    pairs = dict(FILES)
    for source, target in FOLDERS.items():
        for path in sorted((PACKAGE / source).glob("*.py")):
            pairs[f"{source}/{path.name}"] = f"{target}/{path.name}"
    return {
        PACKAGE / target: formatted(blocking_form((PACKAGE / source).read_text("utf-8"), source), PACKAGE / target)
        for source, target in pairs.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the blocking form of imhelper from its asyncio source.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when a file has drifted")
    check = parser.parse_args().check
    files = wanted()
    extra = [p for target in FOLDERS.values() for p in (PACKAGE / target).glob("*.py") if p not in files]
    drifted = [p for p, text in files.items() if not p.exists() or p.read_text("utf-8") != text] + extra
    for path in drifted:
        print(f"{'drifted' if check else 'written'}: {path.relative_to(PACKAGE.parents[2])}", file=sys.stderr)
        if check:
            continue
        if path in extra:
            path.unlink()
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(files[path], "utf-8")
    if check and drifted:
        print("run: python tools/unasync.py", file=sys.stderr)
    return 1 if check and drifted else 0


if __name__ == "__main__":
    sys.exit(main())
