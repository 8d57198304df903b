"""What PyTorch says of torchao's classes, and of nobody else's, is not said."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from draftlink.host import torchao

LOGGER = logging.getLogger("torch.utils._pytree")


class Theirs:
    pass


def test_only_lines_about_their_classes_are_left_out(caplog, monkeypatch):
    monkeypatch.setattr(LOGGER, "filters", [])
    LOGGER.warning("%s is theirs", Theirs)
    monkeypatch.setattr(Theirs, "__module__", "torchao.quantization.enums")
    LOGGER.warning("%s is theirs", Theirs)
    torchao.hush()
    torchao.hush()
    LOGGER.warning("%s is theirs", Theirs)
    monkeypatch.setattr(Theirs, "__module__", "torchaoist")
    LOGGER.warning("%s is not", Theirs)
    LOGGER.warning("no class at all")
    assert len(caplog.messages) == 4 and len(LOGGER.filters) == 1


@pytest.mark.parametrize(
    "module",
    ["bs_runtime.model.loading", pytest.param("export.source", marks=pytest.mark.full)],
)
def test_a_library_s_import_says_nothing(module):
    pytest.importorskip("torchao", reason="it is what is talked of")
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
