#!/usr/bin/env -S python3 -I
"""Exit 0 where the server of this container is alive: asks /healthz of the operators' port, which needs no package."""

import http.client
import os
import sys

port = int(os.environ.get("RECSYS_SERVER__ADMIN_HTTP__PORT", "9090"))
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
try:
    connection.request("GET", "/healthz")
    sys.exit(connection.getresponse().status != 200)
except OSError as error:
    sys.exit(f"no answer on port {port}: {error}")
finally:
    connection.close()
