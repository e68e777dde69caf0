"""One turn of a training, in a process of its own: `python -m pipeline.training.turn`.

The first line of standard input is a `TrainRequest` as JSON, a second one asks it to stop after the step at hand; when
standard input ends, whoever asked for the turn is gone and so is the turn. Standard output has a line of JSON now and
then, see `pipeline.training.turns`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

from pipeline.events import Event, Stepped
from pipeline.requests.models import TrainRequest
from pipeline.training.train import run_training

#: seconds between lines
_EVERY_S = 2.0


def main() -> int:
    """Train as standard input asks, until it is done or asked to stop; return the exit code, 1 for a failure."""
    told = 0.0
    # whoever starts a plan in a shell's background ignores it
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def tell(event: Event) -> None:
        nonlocal told
        if isinstance(event, Stepped) and (event.validation or time.monotonic() - told > _EVERY_S):
            told = time.monotonic()
            _say({"step": event.step, "seconds": event.seconds, "score": event.score, "word": event.word})

    try:
        request = TrainRequest(**json.loads(sys.stdin.readline()))
        threading.Thread(target=_listen, daemon=True).start()
        card = run_training(request, tell)
    except KeyboardInterrupt:
        return 0
    except Exception as error:  # one training that fails must not end the others
        _say({"error": f"{error}" or type(error).__name__})
        return 1
    if card is not None:
        _say({"steps": card.steps, "figures": card.figures})
    return 0


def _listen() -> None:
    if sys.stdin.readline():
        os.kill(os.getpid(), signal.SIGINT)
    else:
        os._exit(1)


def _say(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    sys.exit(main())
