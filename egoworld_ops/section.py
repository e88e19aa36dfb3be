"""Base of the sections of the settings. Each section is declared in the package that reads it; `settings.py` combines them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of the sections: unknown names are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
