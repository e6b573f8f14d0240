"""Logs: one line is one entry, whatever was in it, and no line tells what was asked."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator

import pytest
import structlog

from recsys.serve.log import configure_logging

EVIL = 'u\n{"event": "forged"}\r\x1b[31m\x00\u202e\u2066\u2028\x85\ud800"'


@pytest.fixture(autouse=True)
def as_served() -> Iterator[None]:
    before, handlers, hook = structlog.get_config(), logging.root.handlers[:], threading.excepthook
    configure_logging()
    structlog.configure(cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)
    logging.root.handlers[:] = handlers
    threading.excepthook = hook


def entries(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    text = capsys.readouterr().err
    assert text.isascii()
    assert not any(ord(letter) < 32 and letter != "\n" for letter in text)
    return [json.loads(line) for line in text.splitlines()]


def test_nothing_in_a_value_makes_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger("recsys.serve").info("denied", peer=EVIL, **{"key\n": EVIL})
    (entry,) = entries(capsys)
    assert entry["event"] == "denied"
    assert entry["peer"] == EVIL


def test_what_libraries_log_is_a_line_and_an_exception_keeps_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("grpc").warning("odd: %s", EVIL)
    try:
        raise ValueError("the text of a user")
    except ValueError:
        logging.getLogger("grpc").exception("Exception calling application: the text of a user")
    told, failed = entries(capsys)
    assert told["message"] == f"odd: {EVIL}"
    assert (failed["error"], failed["logger"]) == ("ValueError", "grpc")
    assert "text of a user" not in str(failed)


def test_a_thread_that_fails_tells_where_and_not_what(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("the text of a user")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    (entry,) = entries(capsys)
    assert (entry["event"], entry["error"]) == ("thread failed", "ValueError")
    assert "text of a user" not in str(entry)
    assert "fail" in str(entry["where"])
