"""S3 access kept in Prefect, so that a scheduled run needs no secrets in its parameters or environment."""

from __future__ import annotations

from typing import TypeVar

from prefect.blocks.core import Block
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel, Field, SecretStr

from pipeline.request import RequestError
from pipeline.storage import StorageOptions

Request = TypeVar("Request", bound=BaseModel)


class S3Access(Block):
    """Access to an S3 service. Fields left empty fall back to the worker's environment."""

    _block_type_name = "Darkroom S3"
    _block_type_slug = "darkroom-s3"
    _description = "Endpoint and credentials that Darkroom reads a source or writes a destination with."

    endpoint_url: str | None = Field(None, description="https://host:port; empty for AWS")
    key: SecretStr | None = Field(None, description="access key id")
    secret: SecretStr | None = Field(None, description="secret access key")
    token: SecretStr | None = Field(None, description="session token")
    region: str | None = Field(None, description="such as eu-central-1")
    path_style: bool | None = Field(None, description="buckets in the path instead of the host name")
    anonymous: bool | None = Field(None, description="read public buckets without signing")

    def options(self) -> StorageOptions:
        """The same, in the pipeline's words; what is empty comes from the environment.

        Credentials come whole from one of the two. Raises ValueError when they are not whole.
        """
        environment = dict(StorageOptions.from_environment())
        if self.key or self.secret or self.anonymous:
            environment |= {"key": None, "secret": None, "token": None, "anonymous": False}
        own = {name: getattr(self, name) for name in StorageOptions.model_fields}
        return StorageOptions(**(environment | {name: value for name, value in own.items() if value is not None}))


def with_blocks(request: Request) -> Request:
    """The request with the storage options of the Prefect blocks it names filled in, where it has none.

    The names stay, so that the request can be sent on without what the blocks hold (see `without_secrets`).
    Raises RequestError when there is no such block or it makes no sense.
    """
    found = {}
    for side in ("source", "destination"):
        name = getattr(request, f"{side}_block", None)
        if name and getattr(request, f"{side}_storage") is None:
            if not PREFECT_API_URL.value() and FlowRunContext.get() is None:
                raise RequestError(
                    f"the Prefect block {name!r} for the {side} cannot be had here: no server; set PREFECT_API_URL "
                    "where workers run, or give them access to S3 by their environment"
                )
            try:
                found[f"{side}_storage"] = S3Access.load(name).options()  # type: ignore[union-attr]
            except ValueError as error:
                raise RequestError(f"the Prefect block {name!r} for the {side}: {error}") from error
    return request.model_copy(update=found)


def without_secrets(request: Request) -> Request:
    """The request without what the blocks it names hold: whoever gets it asks Prefect for that."""
    sides = [side for side in ("source", "destination") if getattr(request, f"{side}_block", None)]
    return request.model_copy(update={f"{side}_storage": None for side in sides})
