"""`darkroom verify`: a destination is checked, and with --repair mended."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.destination.layout import VERIFICATION
from pipeline.destination.lease import hold
from pipeline.requests.stores import store_of
from pipeline.requests.upkeep import VerifyRequest
from pipeline.storage.store import write
from pipeline.upkeep.check import Verification, check


def verify(
    request: VerifyRequest,
    planned: Callable[[int], None] = lambda shards: None,
    progress: Callable[[bool], None] = lambda good: None,
) -> Verification:
    """Check a destination; with `repair` mend what can be and check again, with `report` write a page there.

    See `pipeline.upkeep.check.check` for what is told and raised. Repairs hold the destination's lease; LeaseHeld is
    raised where they cannot.
    """
    destination = store_of(request)
    if request.repair:
        # loads all that develops pictures
        from pipeline.upkeep.repair import repair

        with hold(destination, request.take_over) as lease:
            found = check(destination, request.quick, planned, progress)
            if found.findings:
                found = repair(request, destination, found, lease, planned, progress)
            found.in_use = None
    else:
        found = check(destination, request.quick, planned, progress)
    if request.report:
        from pipeline.upkeep.report import render_verification

        write(destination, VERIFICATION, render_verification(found).encode())
    return found
