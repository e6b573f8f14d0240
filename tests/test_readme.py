"""The README's examples run, and those of the client show every method of the API."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from recsys.serve.services import SERVICES
from recsys.v1 import admin_service_pb2, ingest_service_pb2, memory_service_pb2, ranking_service_pb2
from tests.serve.conftest import World, make_world
from tests.serve.fake import FakeEngine
from tests.serve.ops.conftest import fetch, open_world

__all__ = ["make_world", "open_world"]

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
FILES = (ranking_service_pb2, ingest_service_pb2, memory_service_pb2, admin_service_pb2)


def test_the_client_example_runs_and_calls_every_method(open_world: Callable[..., World]) -> None:
    world = open_world(FakeEngine("s1", created=1.0), FakeEngine("s2", created=2.0))
    (example,) = [each for each in EXAMPLES if "RecsysClient" in each]
    exec(example.replace("localhost:50051", world.target).replace("timeout_s=1.0", "timeout_s=20.0"), {})
    _, metrics, _ = fetch(world, "/metrics")
    answered = set(re.findall(r'^recsys_calls_total\{code="OK",method="(\w+)"\}', metrics, re.MULTILINE))
    services = [service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()]
    assert {service.full_name for service in services} == set(SERVICES)
    assert answered == {method.name for service in services for method in service.methods}
