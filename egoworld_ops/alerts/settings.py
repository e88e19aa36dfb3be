"""Settings of alerts."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, model_validator

from egoworld_ops.naming import is_http_address
from egoworld_ops.section import Section


def _check_url(url: SecretStr | None) -> SecretStr | None:
    if url is not None and not is_http_address(url.get_secret_value()):
        raise ValueError("want an address that begins with https:// or http://, without spaces, line ends and letters beyond ASCII")
    return url


Url = Annotated[SecretStr | None, AfterValidator(_check_url)]


class AlertSettings(Section):
    """Who is told when something is wrong; nobody by default. Part of no digest. What is secret is never shown."""

    slack: Url = None
    """Incoming webhook of Slack, or of a chat that takes its messages (`{"text": ...}`)."""
    webhook: Url = None
    """Gets each alert as a JSON object."""
    mail_to: tuple[str, ...] = ()
    mail_from: str = "egoworld@localhost"
    smtp_host: str = "localhost"
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 25
    smtp_user: str = ""
    smtp_password: SecretStr | None = None
    smtp_starttls: bool = False
    """Speak TLS after STARTTLS, and refuse a server that does not."""
    timeout_s: Annotated[float, Field(gt=0, le=30)] = 10.0
    """How long a receiver may take; then the alert is sent again at the next look."""
    quiet_s: Annotated[float, Field(ge=0)] = 600.0
    """Pause before an alert that grows is sent again."""
    again_after_h: Annotated[float, Field(gt=0)] = 12.0
    """Pause before an alert that is still on is sent again."""
    disk_free_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Less free disk in the lake than this is an alert."""
    failed_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """A larger share of failed results of the latest run than this is an alert, where there are `failed_least`."""
    failed_least: Annotated[int, Field(ge=1)] = 10
    """Fewer failed results than this are no alert of their share; dead letters have their own."""

    @model_validator(mode="after")
    def _without_line_ends(self) -> AlertSettings:
        if any(not text.isprintable() for text in (*self.mail_to, self.mail_from, self.smtp_host, self.smtp_user)):
            raise ValueError("addresses are printable text")
        return self
