"""Keys of the pictures that streams were made of, for runs that bring those back.

`compress` leaves `streams/<branch>/<key>.drk` at its destination, or `<key>.drk` wherever a user has put it: the key of
the original is what remains without folder of the branch and ending. Two streams of one original are refused while the
source is listed, before anything is planned, for one would take the other's place.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.codec.bitstream import EXTENSION
from pipeline.destination.layout import (
    STREAMS,
    branch_folder,
    branch_of,
    folder_of,
    is_destination,
    key_of_name,
    name_of,
    part_path,
)
from pipeline.destination.parquet import read_columns
from pipeline.destination.plans import Plan
from pipeline.errors import PlanError
from pipeline.storage.store import Store

_ENDING = f".{EXTENSION}"


class Originals:
    """The names of originals, object by object in the order of a listing; it holds only what may still collide."""

    def __init__(self, source: Store):
        self.source = source
        self._home: str | None = None
        self._others: list[str] = []
        # names that a "~" was taken from, and those that look as if one had been: they come in no order
        self._odd: set[str] = set()
        self._of_runs: bool | None = None
        self._compared = False

    def key_of(self, key: str) -> str:
        """Return the key of the original of a stream, by that of the stream; any other key as it is.

        Raises PlanError where another object that was listed has the same original, StorageError.
        """
        if not key.endswith(_ENDING) or key.endswith(f"/{_ENDING}"):
            # whatever lies between this and its name with the ending begins with it, too
            self._others = [*(one for one in self._others if key.startswith(one)), key]
            if name_of(key) != key:
                self._odd.add(key)
            return key
        home = self._home_of(key)
        if self._home is None:
            self._home = home
        elif home != self._home:
            raise self._two_homes(key, home)
        original = key_of_name(key[len(home) :].removesuffix(_ENDING))
        self._others = [one for one in self._others if key.startswith(one)]
        if original in self._others or original in self._odd:
            raise PlanError(
                f"{self.source.url} holds {original} and {key}, both of which would be known as {original}; leave one "
                "out with --exclude"
            )
        if name_of(original) != original:
            self._odd.add(original)
        return original

    def check_earlier(self, destination: Store, plans: Sequence[Plan]) -> None:
        """Raise PlanError where finished runs of this work have taken streams of another branch; StorageError.

        They are looked at once, as soon as there is a stream to compare them with.
        """
        if self._compared or self._home is None:
            return
        self._compared = True
        for plan in plans:
            if not plan.shards or plan.gone:
                continue
            first = read_columns(destination, part_path("manifest", plan.run, 0), ["key", "file"]).slice(0, 1)
            for row in first.to_pylist():
                before = self._home_of(row["file"] or "")
                if row["file"] and before != self._home:
                    there, here = (home or "the source itself" for home in (before, self._home))
                    raise PlanError(
                        f"{destination.url} holds pictures of the streams in {there}, and those in {here} would take "
                        "their places; use another destination, or --fresh to replace them"
                    )

    def _home_of(self, key: str) -> str:
        """Return the folder of the branch whose stream it is, with `/` at the end; "" where no run has left it."""
        branch = branch_of(key)
        if branch is None or folder_of(key) != STREAMS:
            return ""
        if self._of_runs is None:
            self._of_runs = is_destination(self.source, "")
        return branch_folder(STREAMS, branch) if self._of_runs else ""

    def _two_homes(self, key: str, home: str) -> PlanError:
        choice = home or self._home
        if home and self._home:
            said = f"streams of several branches, in {self._home} and {home}"
        else:
            said = (
                f"streams of a run, in {choice}, and others beside them, such as {key if not home else 'those above'}"
            )
        return PlanError(
            f"{self.source.url} holds {said}, which may come of the same pictures; choose some with "
            f"--include '{choice}**'"
        )
