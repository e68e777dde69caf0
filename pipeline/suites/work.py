"""The work of a suite: every picture of a source through all settings and methods.

What is measured lies at a destination of its own, in the folder of the suite's evaluation. That folder is named by all
that decides the figures, the listing too, so the same command finds it again: what is measured is not measured twice,
and a run that was killed goes on.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from PIL import Image
from pydantic import ValidationError

from models.errors import ModelError
from pipeline.destination.layout import evaluation_folder, strip_path
from pipeline.destination.plans import SourcePicture
from pipeline.errors import PictureError, RequestError, RunError
from pipeline.events import Listed, Tell, silent
from pipeline.frames.shared_file import SharedFile
from pipeline.pictures.picture import Reserve
from pipeline.pictures.transparency import shown
from pipeline.requests.job import Settings, check_darkroom, fields_of, here, recorded, version
from pipeline.requests.pictures import EvaluateRequest
from pipeline.requests.stores import Access, Stores, objects_of, stores_of
from pipeline.runs.listing import Results
from pipeline.runs.planning import nothing_listed, own_prefix, without_results
from pipeline.shards.memory import Cost
from pipeline.shards.picture import Developed, fail, open_picture, settle
from pipeline.shards.stage_times import Laps
from pipeline.storage.files import below
from pipeline.storage.store import Store, StoredObject
from pipeline.suites.kinds import SUITES
from pipeline.suites.measure import as_measured, measure_picture
from pipeline.suites.networks import Chosen, network_methods, open_chosen
from pipeline.suites.prepare import SuiteRun, installed
from pipeline.suites.suite import Suite

if TYPE_CHECKING:
    from models.inference import Apply

#: raised when a suite measures something else than before, so that old figures are not taken for new ones
VERSION = 2
#: what a suite takes for every byte of the pixels it works on, all its results and float copies together
_COST = 84
#: the largest picture that is measured
MOST_PIXELS = 16_000_000


@dataclass(frozen=True)
class SuiteWork:
    """A suite over the pictures of a source, resolved; see `pipeline.shards.work.ShardWork`.

    `suite` has the baselines that are installed. `run` names the evaluation. `shown` are the objects of which there are
    strips for people, with their numbers in the listing; `listed` is that listing, empty where the work was taken up.
    """

    request: EvaluateRequest
    stores: Stores
    suite: Suite
    networks: tuple[Chosen, ...]
    run: str
    shown: Mapping[str, int]
    listed: Sequence[StoredObject] = field(default=(), repr=False)
    tables: tuple[str, ...] = ("scores",)

    @property
    def source(self) -> Store:
        return self.stores.source

    @property
    def home(self) -> Store:
        return self.stores.destination

    @property
    def destination(self) -> Store:
        return below(self.home, evaluation_folder(self.run))

    @property
    def access(self) -> Access:
        return Access.of(self.request)

    @property
    def cost(self) -> Cost:
        return Cost(_COST, 0, None if self.request.crop is None else self.request.crop**2)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.request, self.stores.source.url, self.suite, self.networks)

    def record(self) -> dict[str, Any]:
        resolved = {
            "kind": "suite",
            "darkroom": version(),
            "fingerprint": self.fingerprint,
            "run": self.run,
            "shown": dict(self.shown),
            "methods": [method.name for method in self.suite.methods],
            "networks": [
                {"model": each.model, "task": each.task, "sha256": each.network.weights} for each in self.networks
            ],
        }
        return recorded(self.request) | {"resolved": resolved}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], access: Access | None = None) -> SuiteWork:
        """Open the work of a record where it is to be done.

        Raises RunError, which names both sides, where this machine would measure something else: another Darkroom,
        other weights, baselines that are not installed.
        """
        planned = record["resolved"]
        check_darkroom(planned)
        try:
            request = EvaluateRequest(**fields_of(record, access))
            networks = tuple(open_chosen(**each) for each in planned["networks"])
            suite = installed(SUITES[str(request.suite)])
        except (RequestError, ModelError, ValidationError, KeyError, TypeError) as error:
            raise RunError(f"{here()} cannot do what was planned: {error}") from error
        methods = [method.name for method in suite.methods]
        if methods != planned["methods"]:
            raise RunError(
                f"planned were the baselines {', '.join(planned['methods'])}, but {here()} has {', '.join(methods)}; "
                "install the same packages in both places"
            )
        work = cls(request, stores_of(request), suite, networks, planned["run"], planned["shown"])
        if work.fingerprint != planned["fingerprint"]:
            raise RunError(
                f"planned was work of the fingerprint {planned['fingerprint'][:12]}, but {here()} makes it "
                f"{work.fingerprint[:12]}; install the same Darkroom in both places"
            )
        return work

    def objects(self) -> Sequence[StoredObject]:
        return self.listed

    def through(
        self,
        found: SourcePicture,
        data: bytes | SharedFile,
        apply: Apply,
        reserve: Reserve,
        give_up: Callable[[], bool],
    ) -> Developed:
        request, laps = self.request, Laps()
        settings = Settings(min(request.pixel_limit, MOST_PIXELS), measure=False)
        apply = laps.elsewhere(apply)
        developed, picture = open_picture(found, data, settings, laps, apply, reserve)
        if picture is None:
            return developed
        try:
            clean = as_measured(shown(picture.pixels), request.crop, request.grey)
        except PictureError as error:
            fail(developed, None, "decode", error.reason, error.message)
            return developed
        methods = (*self.suite.methods, *network_methods(self.suite, self.networks, apply))
        # of a file of frames the first one is shown
        number = None if found.frame else self.shown.get(found.object_key)
        suite = replace(self.suite, methods=methods)
        outcome = measure_picture(found.key, clean, suite, request.seed, number is not None, give_up)
        developed.rows["scores"], developed.failures = outcome.scores, outcome.failures
        settle(developed, outcome.scores)
        for setting, strip in outcome.strips.items():
            buffer = io.BytesIO()
            Image.fromarray(strip).save(buffer, "PNG")
            developed.outputs.append((strip_path(setting, number or 0), buffer.getvalue()))
        laps.end("develop")
        return developed

    def fault(self, decoded: int, rows: Mapping[str, int], branch_failures: int) -> str | None:
        fewest = decoded * len(self.suite.settings)
        if rows["scores"] + branch_failures >= fewest:
            return None
        return f"{rows['scores']} rows of scores + {branch_failures} failures for {decoded} pictures; {fewest} are due"


def suite_work(prepared: SuiteRun, tell: Tell = silent) -> SuiteWork:
    """List the source, and return the work of a checked request; `Listed` is told how many objects there are.

    Raises PlanError where the source holds none, StorageError.
    """
    request, stores, networks = prepared.request, prepared.stores, tuple(prepared.networks)
    own = own_prefix(stores.source, stores.destination)
    results = Results(stores.source)
    found = list(without_results(objects_of(stores.source, request), own, results))
    results.warn()
    if not found:
        raise nothing_listed(request)
    tell(Listed(len(found)))
    mark = fingerprint(request, stores.source.url, prepared.suite, networks)
    listed = json.dumps([[entry.key, entry.etag, entry.size] for entry in found])
    run = f"s{hashlib.sha256((mark + listed).encode()).hexdigest()[:12]}"
    # first, middle and last are what people get to see
    shown = {found[number].key: number for number in (0, len(found) // 2, len(found) - 1)}
    return SuiteWork(request, stores, prepared.suite, networks, run, shown, found)


def fingerprint(request: EvaluateRequest, source: str, suite: Suite, networks: Sequence[Chosen]) -> str:
    """Compute 64 hexadecimal digits that change whenever the figures would."""
    decisive: dict[str, Any] = {"version": VERSION, "suite": suite.name, "source": source}
    names = ("crop", "grey", "seed", "pixel_limit", "frames", "frame_limit")
    decisive |= {name: getattr(request, name) for name in names}
    decisive |= {"methods": [method.name for method in suite.methods]}
    decisive |= {"models": [[each.task, each.network.weights] for each in networks]}
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
