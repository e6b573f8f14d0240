"""`python -m recsys.cli` is `recsys`, but that it ends without taking the interpreter down.

One quickstart of six ended with "terminate called without an active exception", after all was done and closed: a thread
that was still inside a native library when the interpreter went away. So what is registered for the end runs, what was
printed goes out, and the process ends there.
"""

import atexit
import contextlib
import os
import sys

from recsys.cli import main

try:
    main()
except SystemExit as end:
    code = end.code if isinstance(end.code, int) else int(end.code is not None)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
