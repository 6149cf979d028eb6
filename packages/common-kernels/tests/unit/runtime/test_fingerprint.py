# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass
from pathlib import Path

import pytest
from common_kernels.runtime import fingerprint


@dataclass
class Options:
    strength: float = 1.0
    names: tuple[str, ...] = ("a",)


def test_equal_settings_have_equal_digests():
    first = {"a": Options(), "path": Path("x"), "set": {"b", "a"}}
    second = {"set": {"a", "b"}, "path": Path("x"), "a": {"names": ["a"], "strength": 1.0}}
    assert fingerprint.digest_settings(first) == fingerprint.digest_settings(second)
    assert fingerprint.digest_settings(first) != fingerprint.digest_settings(first | {"a": Options(0.5)})


def test_values_without_a_stable_form_are_refused():
    with pytest.raises(TypeError, match="got object"):
        fingerprint.digest_settings({"a": object()})


def test_a_model_is_known_by_its_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = fingerprint.digest_model(tmp_path)
    (tmp_path / ".cache").write_text("x")
    assert fingerprint.digest_model(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert fingerprint.digest_model(tmp_path) != before
    assert fingerprint.digest_model("owner/a") != fingerprint.digest_model("owner/b")


def test_large_weights_are_sampled_from_first_to_last_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "_WHOLE", 64)
    monkeypatch.setattr(fingerprint, "_BLOCK", 8)
    file = tmp_path / "weights"
    file.write_bytes(bytes(1000))
    before = fingerprint.digest_model(file)
    for place in (0, 999):
        data = bytearray(1000)
        data[place] = 1
        file.write_bytes(data)
        assert fingerprint.digest_model(file) != before
