"""Secret files: nobody else's, and followed when they change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recsys.errors import InvalidInput
from recsys.serve.auth.files import CHECK_S, Watched, read_private


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def test_a_change_is_seen_after_a_second_and_a_wrong_one_changes_nothing(tmp_path: Path) -> None:
    file, clock = private(tmp_path / "f", "1"), Clock()

    def parse() -> int:
        try:
            return int(read_private(file, "f"))
        except ValueError as error:
            raise InvalidInput.of("f", "text", "is no number") from error

    watched = Watched((file,), parse, clock=clock)
    private(tmp_path / "new", "22").replace(file)
    assert watched.value == 1
    clock.at += CHECK_S
    assert watched.value == 22
    for wrong in ("x", None):
        if wrong:
            private(tmp_path / "new", wrong).replace(file)
        else:
            file.unlink()
        clock.at += CHECK_S
        assert watched.value == 22
    private(file, "333")
    clock.at += CHECK_S
    assert watched.value == 333
    file.chmod(0o644)
    clock.at += CHECK_S
    assert watched.value == 333
    private(file, "4")
    clock.at += CHECK_S
    assert watched.value == 4


def test_what_is_wrong_from_the_start_is_raised(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        Watched((tmp_path / "none",), lambda: read_private(tmp_path / "none", "f"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused_and_one_of_roots_group_is_not(tmp_path: Path) -> None:
    file = private(tmp_path / "f", "secret")
    os.chown(file, 12345, 0)
    with pytest.raises(InvalidInput, match="12345"):
        read_private(file, "f")
    os.chown(file, 0, 12345)
    file.chmod(0o640)
    assert read_private(file, "f") == b"secret"
