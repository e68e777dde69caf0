"""S3 access kept in Prefect, so that a scheduled run needs no secrets in its parameters or environment."""

from __future__ import annotations

from typing import Any, TypeVar

from prefect.blocks.core import Block
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel, Field, SecretStr

from pipeline.errors import RequestError
from pipeline.storage.store import StorageOptions

#: blocks of prefect-aws that hold access to S3
_OF_AWS = ("aws-credentials", "minio-credentials", "s3-bucket")
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
    requester_pays: bool | None = Field(None, description="pay for requests, where those who read a bucket do")

    def options(self) -> StorageOptions:
        """Return the block's access as the pipeline's options; what is empty comes from the environment.

        Credentials come whole from one of the two. Raises ValueError when they are not whole.
        """
        environment = dict(StorageOptions.from_environment())
        if self.key or self.secret or self.anonymous:
            environment |= {"key": None, "secret": None, "token": None, "anonymous": False}
        own = {name: getattr(self, name) for name in StorageOptions.model_fields}
        return StorageOptions(**(environment | {name: value for name, value in own.items() if value is not None}))


def with_blocks(request: Request) -> Request:
    """Return a request with the storage options of the Prefect blocks that it names filled in, where it has none.

    The names stay, so that the request can be sent on without what the blocks hold (see `Access.without_secrets`).
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
                found[f"{side}_storage"] = _load(name).options()
            except (ValueError, RuntimeError) as error:
                raise RequestError(f"the Prefect block {name!r} for the {side}: {error}") from error
    return request.model_copy(update=found)


def _load(name: str) -> S3Access:
    """Load our own block by its name, or one of prefect-aws as TYPE/NAME. Raises ValueError, RuntimeError."""
    kind, _, rest = name.rpartition("/")
    if kind in ("", S3Access._block_type_slug):
        return S3Access.load(rest)  # type: ignore[return-value]
    if kind not in _OF_AWS:
        raise ValueError(f"there are blocks NAME, {', '.join(f'{one}/NAME' for one in _OF_AWS)}")
    try:
        import prefect_aws  # noqa: F401 (makes its blocks known)
    except ImportError as error:
        raise ValueError("blocks of prefect-aws need it: pip install prefect-aws") from error
    return _of_aws(Block.load(name))


def _of_aws(block: Any) -> S3Access:
    """Translate a block of prefect-aws into ours. Raises ValueError for what ours has no field for."""
    credentials = getattr(block, "credentials", block)
    client = credentials.aws_client_parameters
    common = {"endpoint_url": client.endpoint_url, "region": credentials.region_name}
    if hasattr(credentials, "minio_root_user"):
        key, secret = credentials.minio_root_user, credentials.minio_root_password
        return S3Access(key=key, secret=secret, path_style=True, **common)
    if credentials.profile_name or credentials.assume_role_arn:
        raise ValueError("profiles and roles belong into the worker's environment; give a key and a secret here")
    token = credentials.aws_session_token
    key, secret = credentials.aws_access_key_id, credentials.aws_secret_access_key
    return S3Access(key=key, secret=secret, token=token, **common)
