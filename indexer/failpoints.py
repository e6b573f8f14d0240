"""Places at which a test kills a rebuild. Off unless `LONGREC_FAILPOINT` names one; it exists for tests alone."""

from __future__ import annotations

import os
import signal

VARIABLE = "LONGREC_FAILPOINT"


def failpoint(name: str) -> None:
    """Ends this process by SIGKILL, as a crash would, where the environment names this place."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
