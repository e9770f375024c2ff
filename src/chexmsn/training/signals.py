"""Signals ask a run to stop, and it stops between two steps, when everything is saved."""

import logging
import os
import signal
import subprocess
import threading
from contextlib import suppress
from types import FrameType, TracebackType

from chexmsn.core.distributed import is_first

log = logging.getLogger(__name__)

PREEMPTION = (signal.SIGUSR1, signal.SIGUSR2)  # what `#SBATCH --signal` is told to send
# Of several the last in this list counts: Slurm sends SIGTERM after a preemption, which asked for another turn before;
# a person who stops the run does not want one.
LISTENED_TO = (signal.SIGTERM, *PREEMPTION, signal.SIGINT)
_ORDER = (0, *LISTENED_TO)


class Signals:
    """Notes that the run is asked to stop. A second Ctrl-C does not wait for the step to end.

    Within the `with` block, and in the main thread; elsewhere Python knows no signals.

    Attributes:
        received: the number of the signal that counts, 0 before one has come.
    """

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> "Signals":
        self._before = {number: signal.getsignal(number) for number in LISTENED_TO}
        self.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Take the signals (back) from whoever had them."""
        if threading.current_thread() is threading.main_thread():
            for number in LISTENED_TO:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.received == signal.SIGINT:
                raise KeyboardInterrupt
            if is_first():
                with suppress(OSError):  # nobody reads it; no logging: a line may just have been in the middle
                    os.write(2, b"\nstopping after this step, or at the next Ctrl-C\n")
        self.received = max(self.received, number, key=_ORDER.index)


def requeue() -> None:
    """Ask Slurm to start this job again; the run goes on from what was saved."""
    job = os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        log.warning("job %s could not be requeued (%s): submit it again, and it goes on", job, reason)
    else:
        log.warning("job %s asks Slurm for another turn", job)
