"""`darkroom verify`: a destination is checked, and with --repair mended."""

from __future__ import annotations

from pipeline.destination.layout import VERIFICATION
from pipeline.destination.lease import hold
from pipeline.events import Tell, silent
from pipeline.requests.stores import store_of
from pipeline.requests.upkeep import VerifyRequest
from pipeline.storage.store import write
from pipeline.upkeep.check import Verification, check


def verify(
    request: VerifyRequest,
    tell: Tell = silent,
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
            found = check(destination, request.quick, tell, held=True)
            if found.findings:
                found = repair(request, destination, found, lease, tell)
    else:
        found = check(destination, request.quick, tell)
    if request.report:
        from pipeline.upkeep.report import render_verification

        write(destination, VERIFICATION, render_verification(found).encode())
    return found
