"""Secrets sealed at rest: with a key that is set, or with one in a file of its own."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from heartlane.server.settings import SettingsError, load_settings
from heartlane.server.vault import CantOpen, NoKey, Vault, read_keys


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def test_keys_can_change_while_what_the_old_one_sealed_is_still_read() -> None:
    old, new = new_key(), new_key()
    sealed = Vault(read_keys(old), None).seal("whsec_x")
    assert "whsec" not in sealed
    both = Vault(read_keys(f"{new},{old}"), None)
    assert both.open(sealed) == "whsec_x"
    assert Vault(read_keys(new), None).open(both.seal("y")) == "y"
    with pytest.raises(CantOpen):
        Vault(read_keys(new), None).open(sealed)


def test_a_file_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "heartlane.db.key"
    with pytest.raises(NoKey):
        Vault([], path).open("gAAA")
    assert not path.exists(), "nothing is made to open with"
    sealed = Vault([], path).seal("secret")
    assert path.stat().st_mode & 0o777 == 0o600
    assert Vault([], path).open(sealed) == "secret"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", ["", "no key", "AAAA"])
def test_a_file_that_is_no_key_is_told_so_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    with pytest.raises(NoKey, match="file with this server's key"):
        Vault([], path).seal("x")
    assert path.read_text() == content


def test_without_any_key_the_setting_is_named() -> None:
    with pytest.raises(NoKey, match="HEARTLANE_SECRET_KEY"):
        Vault([], None).seal("x")


@pytest.mark.parametrize("wrong", ["short", ",", new_key()[:-8], f"{new_key()},x"])
def test_a_wrong_key_is_refused_at_the_start_without_being_repeated(wrong: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"secret_key": wrong})
    assert "secret-key must" in str(caught.value)
    assert wrong == "," or wrong not in str(caught.value)


def test_settings_show_no_key() -> None:
    key = new_key()
    settings = load_settings({"secret_key": key})
    assert key not in repr(settings) + str(settings)
    assert settings.vault().open(settings.vault().seal("x")) == "x"
