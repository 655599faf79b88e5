"""The subject of a commit is a sentence of 15 to 72 characters, checked by its hook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HOOK = Path(__file__).resolve().parents[2] / ".ci" / "commit_subject"


def checked(subject: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    message = tmp_path / "message"
    message.write_text(f"{subject}\n\nA body may be as long as it likes, on as many lines.\n")
    words = [sys.executable, str(HOOK), str(message)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("subject", ["Put the design into the repository", "A" * 72])
def test_a_sentence_is_taken(subject: str, tmp_path: Path) -> None:
    assert checked(subject, tmp_path).returncode == 0


@pytest.mark.parametrize(
    "subject", ["wip", "A" * 73, "mend the order of waiters", "Mend the order of waiters."]
)
def test_another_subject_is_refused_with_the_reason(subject: str, tmp_path: Path) -> None:
    refused = checked(subject, tmp_path)
    assert refused.returncode == 1
    assert "the subject" in refused.stderr
