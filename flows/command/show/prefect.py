"""How a command has its work carried out: as a Prefect flow where that is wanted, else plainly in this process."""

from __future__ import annotations

import contextvars
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, TypeVar, cast

from pydantic import BaseModel
from rich.text import Text

from flows.command.console import manner, out
from flows.orchestration.api import ApiError, Way, choose_way
from flows.orchestration.progress import listen
from pipeline.errors import RequestError, RunError
from pipeline.events import Event, Finished, Tell, silent
from pipeline.storage.access import without_credentials

#: seconds that an API has to answer
PATIENCE = 8.0

Result = TypeVar("Result")
Request = TypeVar("Request", bound=BaseModel)


def way_of(request: BaseModel, asked: bool | None) -> Way:
    """Choose the way of a request's work; see `choose_way`.

    Raises RequestError for what needs Prefect with --no-prefect, and ApiError.
    """
    block = _block_of(request)
    needed = None
    if block:
        needed = f"the block {block!r} is kept there"
        if asked is False:
            raise RequestError(f"the block {block!r} is kept in Prefect; leave out --no-prefect")
    return choose_way(asked, needed)


def carry_out(way: Way, flow: str, request: BaseModel, plain: Callable[[Tell], Result], show: Tell = silent) -> Result:
    """Run the flow `module.function` of a request, or what does the same plainly; only inside `through`.

    Either tells `show` its events, and gives the same result. What stopped it is raised.
    """
    if not way.prefect:
        result = plain(show)
        show(Finished(result))
        return result
    module, _, function = flow.rpartition(".")
    return cast(Result, run_flow(getattr(import_module(module), function), request, show))


@contextmanager
def with_access(request: Request, asked: bool | None) -> Iterator[Request]:
    """Yield the request with the access to S3 that Prefect's blocks hold; Prefect is loaded only for these."""
    if not _block_of(request):
        yield request
        return
    with through(way_of(request, asked)):
        from flows.orchestration.blocks import with_blocks

        yield with_blocks(request)


def _block_of(request: BaseModel) -> str | None:
    return getattr(request, "source_block", None) or getattr(request, "destination_block", None)


@contextmanager
def through(way: Way) -> Iterator[None]:
    """Say which way is taken; have Prefect ready and quiet while inside, where it is taken through Prefect.

    Raises ApiError when Prefect does not load, its API does not answer, or no server starts.
    """
    if not way.prefect:
        _say(way)
        yield
        return
    with ExitStack() as stack:
        try:
            from prefect.settings import PREFECT_API_URL, temporary_settings

            settings = stack.enter_context(temporary_settings({PREFECT_API_URL: way.api} if way.api else {}))
        except Exception as error:
            raise ApiError(
                f"Prefect does not load: {_first_line(error)}; mend its settings, or use --no-prefect"
            ) from error
        with out.status("asking Prefect" if way.api else "starting Prefect"):
            if way.api:
                _check_answer(way)
            elif not settings.api.url:
                _start_server()
        _say(way)
        # its first import sets up its logging, which would undo what is set here
        import_module("prefect.main")
        stack.enter_context(_quiet())
        yield


def run_flow(flow: Any, request: BaseModel, show: Tell) -> object:
    """Run a flow of one request, tell `show` its events, and return its result; a failed run is a result, too.

    Raises what stopped it: ApiError when Prefect's API fails during the run, KeyboardInterrupt when the run was
    cancelled, RunError where it ended without a word.
    """
    import httpx
    from prefect.exceptions import PrefectException, TerminationSignal

    finished: list[Finished] = []

    def noted(event: Event) -> None:
        if isinstance(event, Finished):
            finished.append(event)
        show(event)

    of_prefect = (httpx.HTTPError, PrefectException)
    try:
        with listen(noted):
            state = flow(request, return_state=True)
        if state.is_cancelled():
            raise KeyboardInterrupt
        error = state.result(raise_on_failure=False)
        if isinstance(error, BaseException) and not finished:
            raise error
    except TerminationSignal as signalled:
        raise KeyboardInterrupt from signalled
    except of_prefect as error:
        raise ApiError(
            f"Prefect's API failed during the run: {_first_line(error)}; see to its server, then give the same command "
            "again: it goes on where this one ended"
        ) from error
    if not finished:
        raise RunError("the flow ended without a summary; its log in Prefect says why, and so does --verbose")
    return finished[-1].result


def _say(way: Way) -> None:
    # programs find it in the result
    if not manner.json:
        out.print(Text(way.text(), style="dim"))


def _check_answer(way: Way) -> None:
    """Raise ApiError when the API does not answer in time, or not as Prefect's does."""
    found: list[Exception | None] = []
    context = contextvars.copy_context()

    def ask() -> None:
        found.append(_fault())

    # a server that sends a byte now and then is never waited for longer
    thread = threading.Thread(target=context.run, args=(ask,), daemon=True)
    thread.start()
    thread.join(PATIENCE + 1)
    error = found[0] if found else TimeoutError(f"no answer within {PATIENCE:.0f} s")
    if error is not None:
        raise ApiError(
            f"the Prefect API {without_credentials(str(way.api))} ({way.why}) {_said_of(error)}, or use --no-prefect"
        ) from error


def _fault() -> Exception | None:
    """Find what is wrong with the API that is set, None where it answers."""
    from prefect.client.base import ServerType
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings={"timeout": PATIENCE}) as client,
        ):
            if client.server_type == ServerType.CLOUD:
                return client.api_healthcheck()
            if not isinstance(client.api_version(), str):
                raise ValueError("its version is none")
            client.raise_for_api_version_mismatch()
    except Exception as error:
        return error
    return None


def _said_of(error: Exception) -> str:
    """Say what an API did instead of answering, and what to do."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        if status in (401, 403):
            return f"refuses us ({status}); set PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
        return f"answers {status}; see to its server, correct the URL (it ends in /api as a rule)"
    if isinstance(error, ImportError) or "proxy" in str(error).lower():
        return f"cannot be asked ({_first_line(error)}); mend HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return f"is no URL ({_first_line(error)}); correct it: http://HOST:4200/api"
    if isinstance(error, httpx.HTTPError | TimeoutError):
        return f"does not answer ({_first_line(error) or type(error).__name__}); start its server, correct the URL"
    if isinstance(error, ValueError):
        return "answers something that Prefect's API does not; correct the URL (it ends in /api as a rule)"
    return f"cannot be used ({_first_line(error)}); see to its server"


def _start_server() -> None:
    """Start a server for this process's own time, out of reach of the terminal's Ctrl-C.

    Without it the run could not be told to have ended. Raises ApiError when it does not start.
    """
    from prefect.server.api.server import SubprocessASGIServer

    server, failed, seen = SubprocessASGIServer(), list[Exception](), set[int]()

    def start() -> None:
        try:
            server.start()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=start, daemon=True)
    # a thread, and so a child process, begins with the signals blocked that are blocked here
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # Prefect starts one that ends again, and again, for ever
    while thread.is_alive() and len(seen) < 2:
        thread.join(0.1)
        process = server.server_process
        seen |= {process.pid} if process else set()
    if thread.is_alive() or failed:
        while thread.is_alive():
            server.stop()
            thread.join(0.1)
        server.stop()
        raise ApiError(
            "a Prefect server of this command's own does not start; prefect server start shows why, and --no-prefect "
            "does without"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Prefect from printing tracebacks of what is told to the user in one line anyway."""
    # at the end of a short run it says how many events are still to be sent, and sends them; it is not below `prefect`
    logging.getLogger("EventsWorker").setLevel(logging.INFO if manner.verbose else logging.CRITICAL)
    logger = logging.getLogger("prefect")
    before = logger.level
    logger.setLevel(logging.INFO if manner.verbose else logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _first_line(error: BaseException) -> str:
    return without_credentials(str(error).strip().partition("\n")[0])
