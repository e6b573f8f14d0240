"""docs/api.md says what is: its example runs, and it names every method, reason and limit."""

from __future__ import annotations

import re
from pathlib import Path

from recsys.serve import rules
from recsys.types import MAX_CANDIDATES, MAX_ID_BYTES, MAX_INLINE_EVENTS
from recsys.v1 import admin_service_pb2, ingest_service_pb2, memory_service_pb2, ranking_service_pb2
from recsys.wire import status
from tests.serve.conftest import World

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_the_example_runs(world: World, capsys) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(example.replace("localhost:50051", world.target).replace("timeout_s=1.0", "timeout_s=20.0"), {})
    printed = capsys.readouterr().out
    assert "1 0 tent-2 101.0 ()" in printed
    assert "(1, 2)" in printed


def test_every_method_and_reason_is_named() -> None:
    files = (ranking_service_pb2, ingest_service_pb2, memory_service_pb2, admin_service_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    for name in [method.name for service in services for method in service.methods]:
        assert f"| {name} |" in TEXT
    for _, _, reason in status._KINDS:
        assert reason in TEXT or reason == "MISSING_EXTRA"


def test_limits_are_those_of_the_code() -> None:
    assert f"Ids {MAX_ID_BYTES} bytes, event types {rules.MAX_BYTES['Event.event_type']}" in TEXT
    assert f"{MAX_CANDIDATES:,} candidates, {MAX_INLINE_EVENTS:,} events of extra history" in TEXT
    assert f"{rules.MAX_COUNT['EncodeTextsRequest.texts']} texts to encode" in TEXT
    assert f"{rules.MAX_COUNT['ExplainRankingRequest.item_ids']} items to explain" in TEXT
