"""A section of the settings. Each section stands beside what reads it; `settings.py` puts them together."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of the sections: unknown names are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
