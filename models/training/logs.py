"""Training curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from models.errors import TrainingError
from models.training.loop import Report

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: training figures are means over so many steps
EVERY = 20


@contextmanager
def tensorboard_log(folder: str) -> Iterator[Callable[[Report], None]]:
    """Open a listener for reports that writes them below a local folder as `train/…` and `held-out/…`.

    A resumed run goes on in the same curves: what was logged after its checkpoint is hidden. Raises TrainingError when
    the folder is not local or TensorBoard is not installed.
    """
    if "://" in folder:
        raise TrainingError(f"the log {folder} must be a folder of this machine")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("a log needs TensorBoard; install it with: pip install tensorboard") from error
    writer: SummaryWriter | None = None
    lines: list[Report] = []

    def listen(line: Report) -> None:
        nonlocal writer
        if writer is None:
            writer = SummaryWriter(folder, purge_step=line.step)
        lines.append(line)
        if line.step % EVERY == 0 or line.validation:
            _write(writer, lines)
            lines.clear()

    try:
        yield listen
    finally:
        if writer:
            writer.close()


def _write(writer: SummaryWriter, lines: list[Report]) -> None:
    first, last = lines[0], lines[-1]
    figures = {name: float(np.mean([line.figures[name] for line in lines])) for name in last.figures}
    figures["learning rate"] = last.learning_rate
    if last.seconds > first.seconds:
        figures["pictures per second"] = (last.pictures - first.pictures) / (last.seconds - first.seconds)
    for kind, values in (("train", figures), ("held-out", last.validation or {})):
        for name, value in values.items():
            writer.add_scalar(f"{kind}/{name.replace(' ', '_')}", value, last.step)
