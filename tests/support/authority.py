# A small certificate authority of a test's own, by the openssl program.
# Its certificates open nothing outside of the test.

import subprocess
from pathlib import Path

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Authority:
    """Signs certificates with the openssl program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._run("req", "-x509", *KEY, "-days", "2", "-subj", "/CN=test authority",
                  "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=30)

    def sign(self, name: str, subject: str, alternative: str = "") -> tuple[str, str]:
        """A certificate and its key, as paths."""
        self._run("req", *KEY, "-subj", f"/CN={subject}",
                  "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        extra = self.folder / f"{name}.ext"
        extra.write_text(f"subjectAltName={alternative}\n" if alternative else "")
        self._run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                  "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem")  # fmt: skip
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")
