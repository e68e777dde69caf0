"""Which way a command takes: plainly in its own process, or through Prefect where somebody has configured an API.

Prefect itself takes seconds to import, so its settings are read here from where it keeps them: the environment, `.env`,
`prefect.toml`, `pyproject.toml` and the active profile, in this order. The last place is the record that `darkroom
serve` keeps while it is at work.
"""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import DarkroomError
from pipeline.storage.access import without_credentials

#: hosts that are this machine
LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: profiles that Prefect has without a file
_SHIPPED: dict[str, dict[str, Any]] = {
    "ephemeral": {"PREFECT_SERVER_EPHEMERAL_ENABLED": "true"},
    "local": {"PREFECT_API_URL": "http://127.0.0.1:4200/api"},
    "test": {"PREFECT_SERVER_EPHEMERAL_ENABLED": "true"},
    "cloud": {},
}
#: settings: their names in the environment, and their places in TOML
_URL = (("PREFECT_API_URL",), "api.url")
_HOME = (("PREFECT_HOME",), "home")
_PROFILES = (("PREFECT_PROFILES_PATH",), "profiles_path")
_MAY_START = (("PREFECT_SERVER_EPHEMERAL_ENABLED", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"), "server.ephemeral.enabled")


class ApiError(DarkroomError):
    """A Prefect API that cannot be used; the message says which, what is wrong with it, and what to do."""

    exit_code = 3


@dataclass(frozen=True)
class Way:
    """How a command's work is carried out, and why so.

    `prefect`: as a flow; `api`: the URL of the API that is told of it, None for a server that the command starts.
    """

    prefect: bool
    why: str
    api: str | None = None

    def text(self) -> str:
        """Say which way is taken, for people: through Prefect at http://127.0.0.1:4200/api (PREFECT_API_URL)."""
        if not self.prefect:
            return f"without Prefect ({self.why})"
        at = f"at {without_credentials(self.api)}" if self.api else "on a server of this command's own"
        return f"through Prefect {at} ({self.why})"

    def record(self) -> dict[str, Any]:
        """Return the way as plain data, for programs."""
        return {"used": self.prefect, "api": self.api and without_credentials(self.api), "why": self.why}


def choose_way(asked: bool | None, needed: str | None = None) -> Way:
    """Choose the way of a command that was given --prefect (True), --no-prefect (False) or neither (None).

    `needed` says why Prefect has to be used whether or not an API is configured. Raises ApiError when what is
    configured cannot be read, or allows no server where one would have to be started.
    """
    if asked is False:
        return Way(False, "--no-prefect")
    if found := configured_api():
        return Way(True, *found)
    if url := _served():
        return Way(True, "darkroom serve", url)
    if not (asked or needed):
        return Way(False, "no Prefect API is configured")
    _check_own_server()
    return Way(True, "--prefect" if asked else str(needed))


def configured_api() -> tuple[str, str] | None:
    """Return where Prefect's settings name an API, and its URL; None where they name none.

    Raises ApiError where settings cannot be read.
    """
    where, url = _setting(*_URL)
    return (where, str(url)) if url else None


def prefect_home() -> Path:
    """Return Prefect's folder: its database, its logs, and the record of `darkroom serve`.

    Raises ApiError where settings cannot be read.
    """
    _, named = _setting_outside_profiles(*_HOME)
    return Path(os.path.expanduser(str(named or "~/.prefect")))


def check_home() -> None:
    """Raise ApiError when Prefect's folder cannot be written to."""
    home = prefect_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise ApiError(
            f"PREFECT_HOME, the folder {home}, cannot be written to ({error.strerror}), and a Prefect server keeps its "
            "database there; name another folder in PREFECT_HOME, or a server that is at work in PREFECT_API_URL"
        ) from error


def spare_loopback(*hosts: str) -> None:
    """Keep the proxies of the environment away from this machine's own addresses, for all that is started from here.

    `hosts` are addresses of this machine besides `LOOPBACK`.
    """
    proxies = [name for name in os.environ if name.lower().endswith("_proxy") and name.lower() != "no_proxy"]
    if not proxies:
        return
    for name in ("NO_PROXY", "no_proxy"):
        # libraries read one of the two
        given = os.environ.get(name) or os.environ.get(name.swapcase(), "")
        spared = [host.strip() for host in given.split(",") if host.strip()]
        os.environ[name] = ",".join(dict.fromkeys((*spared, *LOOPBACK, *hosts)))


@contextmanager
def recorded(api: str) -> Iterator[None]:
    """Keep a record of this process and its API while inside, for commands on this machine to find."""
    import psutil

    path = _record_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps({"api": api, "pid": os.getpid(), "started": psutil.Process().create_time()}))
    partial.replace(path)
    try:
        yield
    finally:
        # another one may have been started since
        if _record().get("pid") == os.getpid():
            path.unlink(missing_ok=True)


def _check_own_server() -> None:
    where, allowed = _setting(*_MAY_START)
    if str(allowed).lower() not in ("true", "1", "yes", "on", "t", "y"):
        raise ApiError(
            f"no Prefect API is configured, and {where} allows no server of the command's own; set PREFECT_API_URL to "
            "a server that is at work, or PREFECT_SERVER_EPHEMERAL_ENABLED=true, or leave out --prefect"
        )
    check_home()


def _served() -> str | None:
    """Return the API of a `darkroom serve` that is at work on this machine, None where there is none."""
    record = _record()
    if not record:
        return None
    import psutil

    try:
        # another process may have the number by now
        alive = abs(psutil.Process(int(record["pid"])).create_time() - float(record["started"])) < 1
        return str(record["api"]) if alive else None
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return None


def _record() -> dict[str, Any]:
    try:
        record = json.loads(_record_path().read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _record_path() -> Path:
    return prefect_home() / "darkroom" / "serve.json"


def _setting(variables: tuple[str, ...], path: str) -> tuple[str, Any]:
    """Find a setting of Prefect: where it is set, and its value; where it is set nowhere, the profile and None."""
    where, value = _setting_outside_profiles(variables, path)
    if value is not None:
        return where, value
    profile, settings = _profile()
    return f"the Prefect profile {profile!r}", next((settings[name] for name in variables if name in settings), None)


def _setting_outside_profiles(variables: tuple[str, ...], path: str) -> tuple[str, Any]:
    for where, settings in (("", os.environ), (" in .env", _dotenv())):
        for name in variables:
            if settings.get(name) is not None:
                return name + where, settings[name]
    for file, above in (("prefect.toml", ""), ("pyproject.toml", "tool.prefect.")):
        value = _below(_toml(Path(file)), above + path)
        if value is not None:
            return f"{path} in {file}", value
    return "", None


def _profile() -> tuple[str, Mapping[str, Any]]:
    """Return the name of the active profile and its settings."""
    _, named = _setting_outside_profiles(*_PROFILES)
    path = Path(named or prefect_home() / "profiles.toml")
    content = _toml(path)
    name = os.environ.get("PREFECT_PROFILE") or content.get("active") or "ephemeral"
    profiles = content.get("profiles", {})
    profiles = _SHIPPED | (profiles if isinstance(profiles, dict) else {})
    settings = profiles.get(name) if isinstance(name, str) else None
    if not isinstance(settings, dict):
        raise ApiError(f"there is no Prefect profile {name!r} in {path}; prefect profile ls lists those there are")
    return name, settings


def _toml(path: Path) -> dict[str, Any]:
    """Read a file of settings, nothing where there is none. Raises ApiError when it cannot be read."""
    try:
        content = path.read_bytes()
        return tomllib.loads(content.decode())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ApiError(
            f"the file {path} of Prefect's settings cannot be read ({error.strerror}); mend it, or use --no-prefect"
        ) from error
    except ValueError as error:
        if path.name == "pyproject.toml" and b"prefect" not in content:
            return {}
        raise ApiError(
            f"the file {path} of Prefect's settings is no TOML ({error}); mend it, or use --no-prefect"
        ) from error


def _dotenv() -> Mapping[str, str | None]:
    if not Path(".env").is_file():
        return {}
    from dotenv import dotenv_values

    with suppress(OSError, ValueError):
        return dotenv_values(".env")
    return {}


def _below(content: Any, path: str) -> Any:
    for name in path.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content
