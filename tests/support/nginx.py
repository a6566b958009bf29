# A real nginx for what the docs say about proxies: it runs a part of a configuration as it stands there.
# Its files are below the test's folder; without nginx on the machine the test is skipped.

import shutil
import socket
from pathlib import Path

import pytest

from tests.support.process import Process

_FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx(Process):
    """An nginx whose `http` block holds `text`."""

    def __init__(self, text: str, folder: Path) -> None:
        program = shutil.which("nginx") or pytest.skip("no nginx on this machine (Debian: apt-get install nginx-light)")
        own = "\n".join(f"{name}_temp_path {folder}/{name};" for name in _FOLDERS)
        config = folder / "nginx.conf"
        config.write_text(
            f"pid {folder}/nginx.pid;\ndaemon off;\nevents {{}}\nhttp {{\naccess_log off;\n{text}\n{own}\n}}\n"
        )
        super().__init__("nginx", [program, "-e", "stderr", "-p", str(folder), "-c", str(config)], folder / "nginx.log")


def listens(port: int) -> bool:
    """Whether somebody takes connections at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
