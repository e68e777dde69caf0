"""Give a Prefect server its work pools, concurrency limits, blocks and automations, as one YAML file says.

    PREFECT_API_URL=http://127.0.0.1:4200/api python deploy/setup_server.py [FILE]

May be run again at any time: what is there is renewed, what the file does not name is left alone. FILE is server.yaml
beside this script by default. Exit codes: 0 done, 1 the server does not answer, 2 the file or the environment is wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Literal

import httpx
import yaml
from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.orchestration.blocks import S3Access


class SetupError(Exception):
    """Something that cannot be set up; the message says what and why."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PoolSettings(_Strict):
    """A work pool; `base_job_template` is a JSON file beside the YAML file, by default the type's own template."""

    type: Literal["process", "docker", "kubernetes"]
    description: str = ""
    concurrency_limit: int | None = Field(None, ge=1)
    base_job_template: str | None = None


class ServerSettings(_Strict):
    """The whole file."""

    work_pools: dict[str, PoolSettings] = {}
    concurrency_limits: dict[str, int] = {}
    blocks: dict[str, dict[str, Any]] = {}
    automations: dict[str, dict[str, Any]] = {}


def main(path: Path) -> int:
    """Set up the server that PREFECT_API_URL names; returns the exit code."""
    try:
        settings = read_settings(path)
        if not PREFECT_API_URL.value():
            raise SetupError("PREFECT_API_URL names no server; with darkroom serve it is http://127.0.0.1:4200/api")
        with get_client(sync_client=True) as client:
            for name, pool in settings.work_pools.items():
                _say("work pool", name, _set_pool(client, name, pool, path.parent))
            for name, limit in settings.concurrency_limits.items():
                client.upsert_global_concurrency_limit_by_name(name, limit)
                _say("concurrency limit", name, f"{limit}")
        for name, fields in settings.blocks.items():
            S3Access(**fields).save(name, overwrite=True)
            _say("block darkroom-s3", name, "saved")
        for name, fields in settings.automations.items():
            _say("automation", name, _set_automation(name, fields))
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except httpx.HTTPError as error:
        print(f"error: {PREFECT_API_URL.value()}: {error}", file=sys.stderr)
        return 1
    return 0


def read_settings(path: Path) -> ServerSettings:
    """The file's settings with `${NAME}` filled in; raises SetupError when file or environment lack something."""
    missing: set[str] = set()

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: fill(part) for name, part in value.items()}
        if isinstance(value, list):
            return [fill(part) for part in value]
        found = re.fullmatch(r"\$\{(\w+)\}", value) if isinstance(value, str) else None
        if found and found[1] not in os.environ:
            missing.add(found[1])
        return os.environ.get(found[1]) if found else value

    try:
        settings = ServerSettings.model_validate(fill(yaml.safe_load(path.read_text())))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise SetupError(f"{path}: {error}") from error
    if missing:
        raise SetupError(f"{path} takes {', '.join(sorted(missing))} from the environment, where they are not set")
    return settings


def _set_pool(client: SyncPrefectClient, name: str, pool: PoolSettings, folder: Path) -> str:
    if pool.base_job_template:
        try:
            template = json.loads((folder / pool.base_job_template).read_text())
        except (OSError, ValueError) as error:
            raise SetupError(f"base_job_template of {name!r}: {error}") from error
    else:
        template = asyncio.run(get_default_base_job_template_for_infrastructure_type(pool.type))
    shared = {
        "description": pool.description,
        "concurrency_limit": pool.concurrency_limit,
        "base_job_template": template or {},
    }
    try:
        there = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type=pool.type, **shared))
        return f"made, {pool.type}"
    if there.type != pool.type:
        raise SetupError(f"the work pool {name!r} is there already, of type {there.type}; delete it, or name another")
    client.update_work_pool(name, WorkPoolUpdate(**shared))
    return f"renewed, {pool.type}"


def _set_automation(name: str, fields: dict[str, Any]) -> str:
    try:
        wanted = Automation.model_validate({"name": name, **fields})
    except ValidationError as error:
        raise SetupError(f"automation {name!r}: {error}") from error
    try:
        wanted.id = Automation.read(name=name).id
    except ValueError:
        wanted.create()
        return "made"
    wanted.update()
    return "renewed"


def _say(kind: str, name: str, what: str) -> None:
    print(f"{kind} {name}: {what}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("server.yaml")))
