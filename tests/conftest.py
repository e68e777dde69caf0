"""What every test may ask for: an S3 service, buckets, data sets; and nothing outside this machine."""

from __future__ import annotations

import atexit
import importlib
import os
import pkgutil
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

import flows
import models
import pipeline
from tests.s3_server import S3Server, environment_of, s3_server

if TYPE_CHECKING:
    from pipeline.storage.store import StorageOptions, Store

# Before anything imports PyTorch, and for all processes started: tests run side by side, and threads that wait for
# each other on the same cores take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before anything imports Prefect or botocore: both read their settings then, and Prefect writes to its home.
_PREFECT_HOME = tempfile.mkdtemp(prefix="darkroom-prefect-")
atexit.register(shutil.rmtree, _PREFECT_HOME, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith(("AWS_", "DARKROOM_S3_", "PREFECT_"))]:
    del os.environ[_name]
os.environ |= {
    "PREFECT_HOME": _PREFECT_HOME,
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # a console keeps the width that it finds when it is made: printed tables must not depend on who runs the tests
    "COLUMNS": "300",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


#: the fixture that starts a Prefect server
_SERVER = "prefect_server"

# The same examples at every run, so that a change is judged by what it changes; `make test-slow` searches for new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.register_profile("searching", deadline=None)
settings.load_profile("repeatable")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Imports every module of the rooms in processes that share the tests among them.

    Hypothesis draws from the constants of all modules imported by then, which would depend on how tests were shared.
    """
    if hasattr(session.config, "workerinput"):
        for room in (models, pipeline, flows):
            for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
                importlib.import_module(found.name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share files among processes, those that need a Prefect server as one: its start takes longer than their tests."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    root = config.rootpath
    served = {str(path.relative_to(root)) for path in root.glob("tests/**/test_*.py") if _SERVER in path.read_text()}

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return _SERVER if file in served else file

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 service, started for the first test that asks; the environment of all points to it."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(server).items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def s3_options(s3: S3Server) -> StorageOptions:
    """The `StorageOptions` for the S3 service."""
    from pipeline.storage.store import StorageOptions

    return StorageOptions.from_environment()


@pytest.fixture
def bucket(s3_options: StorageOptions) -> str:
    """The name of a fresh, empty bucket."""
    from pipeline.storage.store import filesystem, open_store

    name = f"test-{uuid.uuid4().hex}"
    filesystem(open_store(f"s3://{name}", s3_options)).call_s3("create_bucket", Bucket=name)
    return name


@pytest.fixture
def s3_store(bucket: str, s3_options: StorageOptions) -> Store:
    """A store in a fresh bucket, below the prefix `pictures`."""
    from pipeline.storage.store import open_store

    return open_store(f"s3://{bucket}/pictures", s3_options)


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The folder of the data sets named by `DARKROOM_DATASETS`; without it the test is skipped."""
    folder = os.environ.get("DARKROOM_DATASETS")
    if not folder:
        pytest.skip("DARKROOM_DATASETS names no folder")
    return Path(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium that keeps what pages log and request."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--no-sandbox", "--headless=new", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    one = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    one.set_window_size(1280, 900)
    yield one
    one.quit()
