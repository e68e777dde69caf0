"""The Job: what is asked for, resolved once into what will be done.

`resolve` is the only code that opens a recipe file, the weights of a step or a store for a request. What comes after
works with what was opened then: a recipe file that is edited, or weights that are replaced, change nothing in a run
that has begun. Where a run's work is done elsewhere, the job travels as a record of plain data, without access to
storage; whoever takes it up opens everything anew and refuses where that would come to something else.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from models.device import choose_device
from models.errors import ModelError
from pipeline.errors import RecipeError, RunError
from pipeline.pictures.picture import Crop, parse_crop
from pipeline.requests.pictures import DevelopRequest, RunRequest
from pipeline.requests.plugins import installed_version
from pipeline.requests.recipe import Recipe, fingerprint, load_recipe, open_networks, parse_recipe
from pipeline.requests.stores import Access, objects_of, of_one_object
from pipeline.storage.store import Store, StoredObject, check_access, open_store

if TYPE_CHECKING:
    from models.codec.codec import Codec

#: fields that are about how a run is begun, or how stores are reached: no part of what is recorded
_NOT_RECORDED = {
    "source_storage", "destination_storage", "source_block", "destination_block", "fresh", "take_over", "retry_failed",
}  # fmt: skip


#: fields that change rows, for the fingerprint
DECISIVE = ("pixel_limit", "measure", "crop", "frames", "frame_limit", "strict", "originals")
#: those of them that count only where they are chosen: what was developed before there were they stays developed
_WHERE_CHOSEN = DECISIVE[3:]


@dataclass(frozen=True)
class Settings:
    """The settings that decide the rows of a picture besides the recipe.

    `strict`: damaged pictures, and files that are no pictures, are failures.
    `copies`: what no step has changed is a copy of its source.
    `codecs` are those that streams in the source may need.
    """

    pixel_limit: int
    measure: bool
    strict: bool = False
    copies: bool = False
    crop: Crop | None = None
    codecs: tuple[Codec, ...] = ()


@dataclass(frozen=True)
class Job:
    """A run over pictures, resolved: `request` with its recipe written out, and its stores, settings and fingerprint.

    `models` are the SHA-256 of the weights that streams in the source may need, by their URLs.
    """

    request: DevelopRequest
    recipe: Recipe
    source: Store
    destination: Store
    settings: Settings
    fingerprint: str
    models: Mapping[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Store:
        """Store of the lease and of the run's records: the destination itself."""
        return self.destination

    @property
    def weights(self) -> dict[str, list[str | None]]:
        """SHA-256 of the weights of every step, by branch; None for a step without a network."""
        return {
            branch.name: [None if item.network is None else item.network.weights for item in branch.steps]
            for branch in self.recipe.branches
        }

    @property
    def access(self) -> Access:
        """Access to the job's stores, for whoever takes up its record."""
        return Access.of(self.request)

    def objects(self) -> Iterator[StoredObject]:
        """Return an iterator over the objects of the source that the request is about, in the order of their keys."""
        return objects_of(self.source, self.request)

    def record(self) -> dict[str, Any]:
        """Return the job as plain data, without access to its stores: what is kept beside a plan, and what travels."""
        from pipeline.destination.schemas import SCHEMA_VERSION

        resolved = {
            "darkroom": version(),
            "tables": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "versions": _step_versions(self.recipe),
            "packages": _packages(self.recipe),
            "weights": self.weights,
            "models": dict(self.models),
        }
        return recorded(self.request) | {"resolved": resolved}

    @classmethod
    def from_record(
        cls, record: Mapping[str, Any], access: Access | None = None, other_darkroom: bool = False, **changes: Any
    ) -> Job:
        """Make the job of a record, opened where it is to be done; `changes` are fields of its request for this place.

        Raises RunError, which names both sides, where this place would do something else: another version of a step or
        of the package that adds it, other weights, another Darkroom (with `other_darkroom` only if that comes to
        another fingerprint); StorageError for an address that cannot be one.
        """
        planned = dict(record["resolved"])
        if not other_darkroom:
            check_darkroom(planned)
        _check_packages(planned)
        try:
            request = DevelopRequest(**(fields_of(record, access) | changes))
            recipe = _read(request)
            _check_versions(recipe, planned)
            recipe = open_networks(recipe, planned.get("weights"))
            job = _resolved(request, recipe, planned.get("models"))
        except (RecipeError, ModelError, ValidationError, KeyError, IndexError) as error:
            raise RunError(f"{here()} cannot do what was planned: {error}") from error
        if job.fingerprint != planned["fingerprint"]:
            raise RunError(
                f"planned was work of the fingerprint {planned['fingerprint'][:12]}{_by(planned)}, but {here()} with "
                f"Darkroom {version()} makes it {job.fingerprint[:12]}; install the same Darkroom in both places, or "
                "develop again with --fresh"
            )
        return job


def resolve(request: DevelopRequest) -> Job:
    """Resolve a request into a job: its recipe and the weights of its steps are read, and its stores opened.

    Nothing is asked of the stores yet. Raises RecipeError, ModelError, and StorageError for an address that cannot be
    one.
    """
    return _resolved(request, open_networks(_read(request)))


def check_request(request: DevelopRequest) -> Job:
    """Resolve a request, whose source may be one object, and check access to both of its stores.

    Stores whose access is in a Prefect block that was not read yet are left for later. The device is looked for where
    the work is done in this process.

    Raises StorageError, RequestError, RecipeError, ModelError, DeviceError.
    """
    if request.engine == "threads":
        choose_device(request.device)
    request = of_one_object(request)
    job = resolve(request)
    # one object was found already, and its folder may not be for everybody to list
    if request.only is None and (request.source_storage or not request.source_block):
        check_access(job.source, for_writing=False)
    if request.destination_storage or not request.destination_block:
        check_access(job.destination, for_writing=True)
    return job


def _read(request: DevelopRequest) -> Recipe:
    return parse_recipe(request.recipe) if isinstance(request.recipe, dict) else load_recipe(request.recipe)


def _resolved(request: DevelopRequest, recipe: Recipe, planned_models: Mapping[str, str] | None = None) -> Job:
    codecs = _codecs(request.model, planned_models or {})
    # the first frame alone is less than its file
    copies = request.crop is None and request.frames != "first"
    opened = tuple(codec for codec, _ in codecs.values())
    return Job(
        request.model_copy(update={"recipe": recipe.as_request()}),
        recipe,
        open_store(request.source, request.source_storage),
        open_store(request.destination, request.destination_storage),
        Settings(request.pixel_limit, request.measure, request.strict, copies, parse_crop(request.crop), opened),
        fingerprint(recipe, _decisive(request)),
        {url: sha256 for url, (_, sha256) in codecs.items()},
    )


def _codecs(urls: tuple[str, ...], planned: Mapping[str, str]) -> dict[str, tuple[Codec, str]]:
    """Load the codecs that streams in the source may need, with the SHA-256 of their weights."""
    if not urls:
        # PyTorch stays unloaded where nothing needs it
        return {}
    from pipeline.networks.streams import load_codec

    return {url: load_codec(url, planned.get(url)) for url in urls}


def _decisive(request: DevelopRequest) -> dict[str, Any]:
    """Return the settings that change rows, for the fingerprint."""
    # not the models: a stream is only ever decoded by the very weights it was made with
    return {
        name: getattr(request, name)
        for name in DECISIVE
        if name not in _WHERE_CHOSEN or getattr(request, name) != DevelopRequest.model_fields[name].default
    }


def recorded(request: RunRequest) -> dict[str, Any]:
    """Return a request as plain data, without how it was begun and how its stores are reached."""
    return request.model_dump(mode="json", exclude=_NOT_RECORDED)


def fields_of(record: Mapping[str, Any], access: Access | None) -> dict[str, Any]:
    """Return the fields of the request of a record, with the access that is given here."""
    given = {name: getattr(access or Access(), name) for name in Access.model_fields}
    return given | {name: value for name, value in record.items() if name != "resolved"}


def check_darkroom(planned: Mapping[str, Any]) -> None:
    """Raise RunError, which names both versions, where what was planned is another Darkroom's."""
    if planned.get("darkroom", version()) != version():
        raise RunError(
            f"planned with Darkroom {planned['darkroom']}, but {here()} has Darkroom {version()}; install the same "
            "version on every machine, then run the same command again"
        )


def _check_packages(planned: Mapping[str, Any]) -> None:
    for package in planned.get("packages", ()):
        name, _, wanted = package.partition(" ")
        found = installed_version(name)
        if wanted and found != wanted:
            raise RunError(
                f"planned with steps of {package}, but {here()} has {f'{name} {found}' if found else f'no {name}'}; "
                "install the same version on every machine, or develop again with --fresh"
            )


def _check_versions(recipe: Recipe, planned: Mapping[str, Any]) -> None:
    for branch in recipe.branches:
        versions = planned.get("versions", {}).get(branch.name, [])
        for item, version in zip(branch.steps, versions, strict=False):
            if item.step.version != version:
                raise RunError(
                    f"planned with version {version} of the step {item.step.name} (branch {branch.name}), but "
                    f"{here()} has version {item.step.version}; install the same {item.step.package or 'Darkroom'} in "
                    "both places, or develop again with --fresh"
                )


def _step_versions(recipe: Recipe) -> dict[str, list[int]]:
    return {branch.name: [item.step.version for item in branch.steps] for branch in recipe.branches}


def _packages(recipe: Recipe) -> list[str]:
    """Return the packages besides Darkroom that add steps of a recipe, with their versions."""
    return sorted({item.step.package for branch in recipe.branches for item in branch.steps if item.step.package})


def _by(planned: Mapping[str, Any]) -> str:
    return f" by Darkroom {planned['darkroom']}" if "darkroom" in planned else ""


def here() -> str:
    """Return the name of this machine."""
    return platform.node() or "this machine"


def version() -> str:
    """Return the version of Darkroom that is installed here."""
    return importlib.metadata.version("darkroom")
