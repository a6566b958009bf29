# docs/migration.md against the helper: every public call stands in the table, and every call in the table exists,
# in both forms, with the parameters that are shown.

import ast
import inspect

from imhelper import ImHelper
from imhelper.sync import ImHelper as BlockingImHelper
from tests.support import docs

ROWS = docs.rows(docs.read("docs/migration.md"), "ImCore")
BEYOND = {"close"}


def _shown() -> dict[str, str]:
    """The call of each row: name → what is shown."""
    found = {}
    for row in ROWS:
        for shown in docs.ticked(row[1]) if len(row) == 3 else []:
            found[shown.partition("(")[0].removeprefix("im.").partition(".")[0]] = shown
    return found


def _public(helper: type) -> set[str]:
    return {name for name in vars(helper) if not name.startswith("_")} - BEYOND


def test_every_call_is_in_the_table_and_nothing_else():
    calls = {name for name in _shown() if name.isidentifier()} - {"im"}
    also_told = {"has_online_many", "iter_online", "get_online_count", "iter_chan"}
    assert also_told <= set(docs.ticked(str(ROWS).replace("(ids)", "").replace("(chan)", "").replace("()", "")))
    assert calls | also_told == _public(ImHelper) == _public(BlockingImHelper)


def test_the_parameters_are_the_codes():
    for name, shown in _shown().items():
        if not name.isidentifier() or name in ("im", "on_send"):
            continue
        tree = ast.parse(f"def {shown}: ...").body[0]
        assert isinstance(tree, ast.FunctionDef)
        for helper in (ImHelper, BlockingImHelper):
            parameters = list(inspect.signature(getattr(helper, name)).parameters.values())[1:]
            written = ast.parse(f"def {name}({', '.join(_plain(p) for p in parameters)}): ...").body[0]
            names = ast.unparse(written).split(":")[0].replace("*, ", "")
            assert names == ast.unparse(tree).split(":")[0].replace("*, ", "")


def _plain(parameter: inspect.Parameter) -> str:
    star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
    return f"{star}{parameter.name}{default}"
