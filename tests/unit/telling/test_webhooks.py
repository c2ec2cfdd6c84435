"""One attempt to deliver an event, against a real receiver: signed, bounded in time and size, never redirected."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.control import ControlActivities
from activities.events import EventActivities
from activities.signing import BadSecret, secrets_of
from models.events import CloudEvent, Delivered, Delivery, HostDrained, Webhook
from models.host import SiteSettings

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
EVENT = CloudEvent.of(
    HostDrained(host="host-a", moved=3, seconds=61.5),
    site="lab",
    workflow_id="host/lab/host-a",
    run_id="01a2",
    sequence=7,
    subject="host-a",
    time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)


class Receiver:
    """Answers every request with `answer` (None: never), and keeps what it got."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.headers: dict[str, str] = {}
        self.body = b""
        self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests += 1
        self.headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        self.body = await reader.readexactly(int(self.headers["content-length"]))
        if self.answer is None:
            await reader.read()  # until the other side gives up
        else:
            writer.write(self.answer)
        writer.close()


@asynccontextmanager
async def receiving(answer: bytes | None) -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver(answer)
    async with await asyncio.start_server(receiver.serve, "127.0.0.1", 0) as server:
        yield receiver, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    return file


async def deliver(url: str, secret_file: Path, **more: float) -> Delivered:
    webhook = Webhook.model_validate({"name": "chat", "url": url, "secret_file": str(secret_file), **more})
    settings = SiteSettings(site="lab", hosts=("host-a",), webhooks=(webhook,))
    activities = EventActivities(settings, None, clock=lambda: 1_767_000_000.9)
    return await ActivityEnvironment().run(activities.deliver_event, Delivery(webhook="chat", event=EVENT))


async def refusal(answer: bytes | None, secret_file: Path, **more: float) -> str:
    async with receiving(answer) as (_, url):
        with pytest.raises(ApplicationError) as caught:
            await deliver(url, secret_file, **more)
    assert not caught.value.non_retryable
    return caught.value.message


async def test_an_event_arrives_as_structured_json_with_a_signature_anybody_can_check(secret_file: Path) -> None:
    async with receiving(b"HTTP/1.1 204 No Content\r\n\r\n") as (got, url):
        assert (await deliver(url, secret_file)).status == 204
    assert got.headers["content-type"] == "application/cloudevents+json"
    assert (got.headers["webhook-id"], got.headers["webhook-timestamp"]) == (EVENT.id, "1767000000")
    signed = f"{EVENT.id}.1767000000.".encode() + got.body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"
    assert json.loads(got.body) == {
        "specversion": "1.0",
        "id": "01a2-7",
        "source": "/novacron/lab/host/lab/host-a",
        "type": "novacron.host.drained",
        "subject": "host-a",
        "time": "2026-01-02T03:04:05Z",
        "datacontenttype": "application/json",
        "sequence": "0000000007",
        "data": {"host": "host-a", "moved": 3, "seconds": 61.5},
    }


async def test_with_two_secrets_both_sign_so_that_one_can_be_changed(secret_file: Path) -> None:
    _add(secret_file, f"whsec_{base64.b64encode(b'n' * 24).decode()}")
    async with receiving(b"HTTP/1.1 200 OK\r\n\r\n") as (got, url):
        await deliver(url, secret_file)
    assert len(got.headers["webhook-signature"].split(" v1,")) == 2


def _add(file: Path, secret: str) -> None:
    file.write_text(f"{secret}\n{file.read_text()}")


async def test_any_answer_but_2xx_is_worth_another_attempt(secret_file: Path) -> None:
    said = await refusal(b"HTTP/1.1 503 Busy\r\n\r\nback  in\na minute", secret_file)
    assert said == "webhook chat answered 503 to novacron.host.drained back in a minute"


async def test_a_redirect_is_not_followed(secret_file: Path) -> None:
    async with receiving(b"HTTP/1.1 200 OK\r\n\r\n") as (elsewhere, url):
        moved = f"HTTP/1.1 302 Found\r\nlocation: {url}\r\n\r\n".encode()
        assert "redirects are not followed" in await refusal(moved, secret_file)
    assert elsewhere.requests == 0


async def test_a_receiver_that_never_answers_is_left(secret_file: Path) -> None:
    assert "no answer within 0.2 s" in await refusal(None, secret_file, timeout=0.2)


async def test_of_an_endless_answer_only_the_beginning_is_read(secret_file: Path) -> None:
    assert len(await refusal(b"HTTP/1.1 500 No\r\n\r\n" + b"x" * 1_000_000, secret_file)) < 700


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 200", b"x" * 100_000])
async def test_what_is_no_answer_of_http_is_an_error(secret_file: Path, answer: bytes) -> None:
    assert "webhook chat took no novacron.host.drained" in await refusal(answer, secret_file)


async def test_a_webhook_taken_out_of_the_settings_is_not_tried_again() -> None:
    activities = EventActivities(SiteSettings(site="lab", hosts=("host-a",)), None)
    with pytest.raises(ApplicationError, match="no longer in the control worker's settings") as caught:
        await ActivityEnvironment().run(activities.deliver_event, Delivery(webhook="chat", event=EVENT))
    assert caught.value.non_retryable


def remove(file: Path) -> None:
    file.unlink()


WRONG: list[tuple[Callable[[Path], object], str]] = [
    (remove, r"secret_file .*: No such file"),
    (lambda file: file.write_text(""), "holds no secret"),
    (lambda file: file.write_text("hunter2hunter2hunter2hunter2"), "secret 1 does not start with whsec_"),
    (lambda file: file.write_text(SECRET + "\nwhsec_!!"), "secret 2 is not base64"),
    (lambda file: file.write_text("whsec_c2hvcnQ="), "has 5 bytes; 24 to 64 are asked for"),
    (lambda file: file.write_bytes(b"\xff\xfe"), "is not text"),
]


@pytest.mark.parametrize(("spoil", "said"), WRONG)
async def test_a_bad_secret_is_a_clear_error_that_never_quotes_it(
    secret_file: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(secret_file)
    webhook = Webhook(name="chat", url="https://a.example/", secret_file=str(secret_file))
    with pytest.raises(BadSecret, match=said) as caught:
        secrets_of(webhook)
    assert str(caught.value).startswith("webhook chat: ")
    assert "openssl rand" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    async with receiving(b"HTTP/1.1 200 OK\r\n\r\n") as (got, url):
        with pytest.raises(ApplicationError, match=said):
            await deliver(url, secret_file)
    assert got.requests == 0


def test_a_secret_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_SECRET", SECRET)
    assert secrets_of(Webhook(name="chat", url="https://a.example/", secret_env="CHAT_SECRET")) == [KEY]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"url": "http://hooks.example.net/"}, "use https; http is for"),
        ({"url": "https://me@hooks.example.net/"}, "without user"),
        ({"url": "https://hooks.example.net/\r\nx: y"}, "without user, fragment or spaces"),
        ({"url": "ftp://127.0.0.1/"}, "use https"),
        ({"types": ["novacron.move.ended"]}, "no type of event fits 'novacron.move.ended'. They are: novacron.move"),
        ({"secret_file": "/x"}, "webhook chat: name its secret by secret_file or by secret_env, one of them"),
        ({"secret_env": None}, "webhook chat: name its secret"),
    ],
)
def test_a_webhook_that_is_unsafe_or_incomplete_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Webhook.model_validate({"name": "chat", "url": "https://a.example/", "secret_env": "S", **wrong})
    assert said in str(caught.value)


async def test_urls_and_secrets_stay_out_of_workflows() -> None:
    webhook = Webhook(name="chat", url="https://a.example/token", secret_env="S", types=("novacron.host.*",))
    settings = SiteSettings(site="lab", hosts=("host-a",), webhooks=(webhook,))
    listed = await ActivityEnvironment().run(ControlActivities(settings, None).list_hosts)
    names = await ActivityEnvironment().run(EventActivities(settings, None).list_webhooks)
    assert listed.webhooks == ()
    assert names.wants == {"chat": ("novacron.host.evacuation", "novacron.host.drained")}
