"""Sends alerts to webhooks and by mail. A receiver that is down or hangs costs `timeout_s`, and no more."""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
import urllib.error
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import partial
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from egoworld_ops import posting
from egoworld_ops.alerts.due import Alert
from egoworld_ops.alerts.settings import AlertSettings
from egoworld_ops.errors import printable

Send = Callable[[Alert], None]
"""Raises OSError (`smtplib` and `urllib` errors are ones) where the receiver does not take it."""
_MOST_CHARS = 2000


def receivers(settings: AlertSettings, origin: str) -> Mapping[str, Send]:
    """Who is told, by name.

    Args:
        origin: where alerts come from, for those who have several: lake and host.
    """
    found: dict[str, Send] = {}
    if settings.slack:
        found["slack"] = partial(_post, settings.slack, settings.timeout_s, lambda alert: {"text": _for_chat(alert, origin)})
    if settings.webhook:
        found["webhook"] = partial(_post, settings.webhook, settings.timeout_s, lambda alert: _as_json(alert, origin))
    if settings.mail_to:
        found["mail"] = partial(_mail, settings, origin)
    return found


def deliver(send: Send, alert: Alert, timeout_s: float) -> str:
    """Send an alert; empty where the receiver took it, else why not.

    A server that answers a byte now and then outlasts every timeout of a socket; so the sending is left alone after `timeout_s`.
    """
    said = [f"it has not answered for {timeout_s:g} s"]

    def attempt() -> None:
        try:
            send(alert)
            said[0] = ""
        except (OSError, HTTPException, ValueError) as error:
            said[0] = _reason(error)

    sending = threading.Thread(target=attempt, name="alert", daemon=True)
    sending.start()
    sending.join(timeout_s)
    return said[0]


def _post(url: SecretStr, timeout_s: float, body: Callable[[Alert], dict[str, Any]], alert: Alert) -> None:
    posting.post(url.get_secret_value(), body(alert), timeout_s)


def _mail(settings: AlertSettings, origin: str, alert: Alert) -> None:
    message = EmailMessage()
    message["Subject"] = printable(f"[egoworld] {alert.title}", 200)
    message["From"], message["To"] = settings.mail_from, ", ".join(settings.mail_to)
    message.set_content("\n\n".join(printable(line, _MOST_CHARS) for line in (alert.said, alert.action, origin)))
    with smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=settings.timeout_s) as server:
        if settings.smtp_starttls:
            server.starttls(context=ssl.create_default_context())
        if settings.smtp_user:
            server.login(settings.smtp_user, settings.smtp_password.get_secret_value() if settings.smtp_password else "")
        server.send_message(message)


def _for_chat(alert: Alert, origin: str) -> str:
    lines = (f"*{_plain(alert.title)}*", _plain(alert.said), _plain(alert.action), f"_{_plain(origin)}_")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text in which a chat finds no link, mention or markup of ours or of a file's name."""
    return printable(text, _MOST_CHARS).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _as_json(alert: Alert, origin: str) -> dict[str, Any]:
    texts = {name: printable(getattr(alert, name), _MOST_CHARS) for name in ("key", "severity", "title", "said", "action")}
    return {**texts, "level": alert.level, "origin": origin, "at": datetime.now(UTC).isoformat(timespec="seconds")}


def _reason(error: Exception) -> str:
    """What went wrong, without the address, which may be a secret."""
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code} {printable(error.reason, 100)}"
    if isinstance(error, urllib.error.URLError):
        return _reason(error.reason) if isinstance(error.reason, Exception) else printable(error.reason, 200)
    if isinstance(error, TimeoutError | socket.timeout):
        return "it does not answer in time"
    return f"{type(error).__name__}: {printable(error, 200)}"


def shown(settings: AlertSettings) -> Mapping[str, str]:
    """Where each receiver is, without secrets."""
    found = {name: str(urlsplit(url.get_secret_value()).hostname) for name in ("slack", "webhook") if (url := getattr(settings, name))}
    return found | ({"mail": f"{', '.join(settings.mail_to)} by {settings.smtp_host}:{settings.smtp_port}"} if settings.mail_to else {})
