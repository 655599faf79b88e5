"""What a user gets wrong is said in one line, with a remedy, before anything is submitted."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager

import pytest

from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from tests.support_runs import WORKFLOW, forebay


@pytest.fixture
def workflow(tmp_path):
    """Write the example with one text in place of another; the rest of it is right."""

    def write(old="", new=""):
        text = WORKFLOW.read_text()
        assert old in text
        shutil.copy(WORKFLOW.parent / "messages.csv", tmp_path)
        path = tmp_path / "workflow.toml"
        path.write_text(text.replace(old, new, 1) if old else text)
        return path

    return write


@asynccontextmanager
async def imitation(reply):
    """A server on TCP that answers each command as told; yields its port."""

    async def serve(reader, writer):
        while (head := await reader.readline()).startswith(b"*"):
            words = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            writer.write(reply(words))
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


def refused(done, *parts):
    """Check that a command failed in one line that names these parts, and wrote nothing."""
    assert done.returncode in {1, 2}
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    for part in parts:
        assert part in lines[0]
    assert "Traceback" not in done.stdout + done.stderr


def nothing_was_submitted(url):
    with open_sync(parse_url(url)) as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ('name = "support_triage"', "name = ", ("workflow.toml", "line 4", "TOML", "correct")),
        ("{{ summary }}", "{{ sumary }}", ("workflow.toml", "triage", "sumary", "summary")),
        ('model = "judge"', 'model = "jugde"', ("workflow.toml", "triage", "jugde", "judge")),
        ('"messages.csv"', '"absent.csv"', ("workflow.toml", "absent.csv")),
        ("buffer_size = 40", "buffer_size = 0", ("workflow.toml", "buffer_size", "1")),
        (
            '"support_triage"',
            '"support/triage"',
            ("toml:4: name: ", "holds '/'", "rename"),
        ),
        (
            '"support_triage"',
            r'"nul\u0000"',
            ("toml:4: name: ", "holds '\\x00'", "rename"),
        ),
        ("out/support_triage.jsonl", "messages.csv", ("output.path", "is the seed file")),
        ("out/support_triage.jsonl", "workflow.toml/o", ("output.path", "is no folder")),
        ("{{ summary }}", "{{" + "(" * 999 + "1" + ")" * 999 + "}}", ("triage", "nested too deep")),
    ],
    ids=[
        "syntax",
        "unknown column",
        "unknown model",
        "no seed file",
        "wrong number",
        "slash in its name",
        "NUL in its name",
        "output is the seed",
        "output below a file",
        "deep template",
    ],
)
def test_a_wrong_workflow_is_refused_by_place(workflow, redis_url, tmp_path, old, new, parts):
    done = forebay("run", workflow(old, new), "--url", redis_url, cwd=tmp_path)
    refused(done, *parts)
    nothing_was_submitted(redis_url)
    assert not (tmp_path / "out").exists()


def test_a_workflow_that_is_not_there_is_named(redis_url, tmp_path):
    refused(forebay("run", "absent.toml", "--url", redis_url, cwd=tmp_path), "absent.toml")
    nothing_was_submitted(redis_url)


def test_a_missing_key_is_named_by_its_variable_and_nothing_is_submitted(
    workflow, redis_url, tmp_path
):
    path = workflow("# api_key_env", "api_key_env")
    done = forebay("run", path, "--url", redis_url, cwd=tmp_path)
    refused(done, "workflow.toml", "providers.local", "LOCAL_API_KEY", "set")
    nothing_was_submitted(redis_url)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--tenant", ""), ("tenant: ", "non-empty", "correct the option")),
        (("--tenant", "x" * 600), ("tenant: ", "the most is 512")),
        (("--weight", "nan"), ("weight: ",)),
        (("--pool", ""), ("pool must be a non-empty string",)),
        (("--pool", "x" * 600), ("pool ", "the most is 512")),
    ],
)
def test_a_wrong_option_is_named(workflow, redis_url, tmp_path, options, parts):
    refused(forebay("run", workflow(), "--url", redis_url, *options, cwd=tmp_path), *parts)
    nothing_was_submitted(redis_url)


def test_a_demo_that_cannot_make_its_folder_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    done = forebay("demo", "--out", "file/out", cwd=tmp_path)
    refused(done, "--out file/out: this folder cannot be made", "Not a directory", "name another")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("reddis://127.0.0.1", ("reddis", "redis://", "embedded://")),
        ("redis://127.0.0.1:1", ("127.0.0.1:1", "Redis 7.0", "is it running", "embedded://")),
        ("unix:///nowhere/redis.sock", ("/nowhere/redis.sock", "is it running", "embedded://")),
    ],
    ids=["wrong URL", "no server", "no socket"],
)
@pytest.mark.parametrize("command", ["run", "worker", "snapshot"])
def test_a_server_that_cannot_be_used_is_named(tmp_path, command, url, parts):
    words = [command, WORKFLOW] if command == "run" else [command]
    refused(forebay(*words, "--url", url, cwd=tmp_path), *parts)
    assert not list(tmp_path.iterdir())


async def test_a_server_that_is_too_old_is_refused_before_anything_is_asked_of_it(tmp_path):
    info = b"redis_version:6.2.14\r\n"
    asked = set()

    def reply(words):
        asked.add(words[0])
        replies = {b"PING": b"+PONG\r\n", b"INFO": b"$%d\r\n%b\r\n" % (len(info), info)}
        return replies.get(words[0], b"+OK\r\n")

    async with imitation(reply) as port:
        url = f"redis://127.0.0.1:{port}"
        done = await asyncio.to_thread(forebay, "run", WORKFLOW, "--url", url, cwd=tmp_path)
    refused(done, f"127.0.0.1:{port}", "Redis 6.2.14", "Redis 7.0 or newer", "upgrade")
    assert asked <= {b"CLIENT", b"INFO", b"HELLO", b"PING"}
    assert not list(tmp_path.iterdir())
