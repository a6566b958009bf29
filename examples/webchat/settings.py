# What the web chat can be told from outside: read once from the environment, checked, then immutable.
# A bad value stops the start with one line that names the variable, the value and what is allowed.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imhelper import ImHelper

STATIC = Path(__file__).resolve().parent / "static"
_IN_TREE_CLIENT = Path(__file__).resolve().parent.parent.parent / "clients" / "js" / "src"


class SettingsError(ValueError):
    """A variable of the environment has a value that the web chat can't run with."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The web chat's settings; every field has an environment variable of the same meaning.

    `redis_url` may hold a password, so it is not shown in the repr.
    """

    redis_url: str = field(default="redis://127.0.0.1:6379", repr=False)
    """IM_REDIS_URL: the Redis that the imservers use."""
    prefix: str = "im"
    """IM_PREFIX: the cluster's key prefix."""
    redis_username: str | None = None
    """IM_REDIS_USERNAME: the ACL user; wins over the URL's."""
    redis_password_file: Path | None = None
    """IM_REDIS_PASSWORD_FILE: a file with the password, read again at each connection; wins over the URL's."""
    redis_ca_file: Path | None = None
    """IM_REDIS_CA_FILE: who signed Redis's certificate."""
    redis_cert_file: Path | None = None
    """IM_REDIS_CERT_FILE: the certificate to log in with; needs the key."""
    redis_key_file: Path | None = None
    """IM_REDIS_KEY_FILE: the key of that certificate."""
    host: str = "127.0.0.1"
    """WEBCHAT_HOST: the address to listen on; this machine only unless told otherwise, since there are no logins."""
    port: int = 5000
    """WEBCHAT_PORT: the port to listen on."""
    client_js: Path = _IN_TREE_CLIENT
    """WEBCHAT_CLIENT_JS: the folder with the browser client's ES module (index.js)."""
    file_max_bytes: int = 20 * 1024 * 1024
    """WEBCHAT_FILE_MAX_BYTES: the largest file one user may send another."""
    files_total_bytes: int = 200 * 1024 * 1024
    """WEBCHAT_FILES_TOTAL_BYTES: what all stored files may take together."""
    file_seconds: int = 600
    """WEBCHAT_FILE_SECONDS: how long a file can be downloaded."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings.

        Raises SettingsError, one line that can be shown to whoever starts the service.
        """
        client_js = Path(environ.get("WEBCHAT_CLIENT_JS") or cls.client_js_default())
        if not (client_js / "index.js").is_file():
            raise SettingsError(f"WEBCHAT_CLIENT_JS={client_js}: must be a folder that holds the client's index.js")
        base = cls()
        return cls(
            redis_url=environ.get("IM_REDIS_URL") or base.redis_url,
            prefix=environ.get("IM_PREFIX") or base.prefix,
            redis_username=environ.get("IM_REDIS_USERNAME") or None,
            redis_password_file=_file(environ, "IM_REDIS_PASSWORD_FILE"),
            redis_ca_file=_file(environ, "IM_REDIS_CA_FILE"),
            redis_cert_file=_file(environ, "IM_REDIS_CERT_FILE"),
            redis_key_file=_file(environ, "IM_REDIS_KEY_FILE"),
            host=environ.get("WEBCHAT_HOST") or base.host,
            port=_whole(environ, "WEBCHAT_PORT", base.port, 1, 65535),
            client_js=client_js,
            file_max_bytes=_whole(environ, "WEBCHAT_FILE_MAX_BYTES", base.file_max_bytes, 1, 1 << 32),
            files_total_bytes=_whole(environ, "WEBCHAT_FILES_TOTAL_BYTES", base.files_total_bytes, 1, 1 << 40),
            file_seconds=_whole(environ, "WEBCHAT_FILE_SECONDS", base.file_seconds, 1, 86400),
        )

    def connect(self) -> ImHelper:
        """A helper for the cluster that the settings name; it connects at its first use."""
        return ImHelper(
            self.redis_url,
            prefix=self.prefix,
            username=self.redis_username,
            password=self._password if self.redis_password_file else None,
            ssl_ca_certs=str(self.redis_ca_file) if self.redis_ca_file else None,
            ssl_certfile=str(self.redis_cert_file) if self.redis_cert_file else None,
            ssl_keyfile=str(self.redis_key_file) if self.redis_key_file else None,
        )

    def _password(self) -> str:
        return self.redis_password_file.read_text("utf-8").strip() if self.redis_password_file else ""

    @staticmethod
    def client_js_default() -> Path:
        """Where the browser client is: beside the page if copied there (a container image), or in the checkout."""
        vendored = STATIC / "vendor"
        return vendored if (vendored / "index.js").is_file() else _IN_TREE_CLIENT


def _file(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name)
    if not text:
        return None
    if not Path(text).is_file():
        raise SettingsError(f"{name}={text!r}: must be the path of a readable file")
    return Path(text)


def _whole(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name)
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise SettingsError(f"{name}={text!r}: must be a whole number from {low} to {high}")
    return int(text)
