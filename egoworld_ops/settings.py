"""Typed settings and profiles; units in names.

What a setting of one backend means is said in that backend's file; a section that one package reads stands in that package.

A profile is a TOML file; environment variables (EGOWORLD_LAKE, EGOWORLD_STAGES__MASKS__BACKEND, ...) win over it.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from egoworld_ops import environment, operators, plugins
from egoworld_ops.alerts.settings import AlertSettings
from egoworld_ops.contract.quality import Bounds, DriftSettings, metrics
from egoworld_ops.errors import BadSettings, unreadable
from egoworld_ops.home import anchored
from egoworld_ops.logs import LogSettings
from egoworld_ops.models.policy import PolicySettings
from egoworld_ops.naming import did_you_mean
from egoworld_ops.release.settings import ReleaseSettings
from egoworld_ops.section import Section, first_fault
from egoworld_ops.types import DecodesOn
from egoworld_ops.video.recordings import PATTERNS
from egoworld_ops.video.settings import CameraSettings, SceneSettings

POOLS = ("broker", "inline")
"""The kinds of pool that are built in."""
PROFILES = Path(__file__).parent / "profiles"
_CURE = "Mend the setting; docs/architecture.md lists them"


def _expanded(given: Any) -> Any:
    """A path with `~` put in full; an empty one would silently be the working folder."""
    if not isinstance(given, str | Path):
        return given
    if not str(given).strip():
        raise ValueError("is empty: name a folder, '.' for the working one")
    if "://" in str(given):
        raise ValueError(f"{given} is a URL, and no folder: mount it, and name the folder where it is mounted")
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{given}: {error}") from error


Folder = Annotated[Path, BeforeValidator(_expanded)]


class StageSettings(BaseModel):
    """The backend of one stage, and a table of options per backend, checked by the backend itself."""

    model_config = ConfigDict(extra="allow", frozen=True)
    backend: str
    fallback: str = ""
    """The backend that takes a clip at which the chosen one fails; none where it is empty."""
    python: str = ""
    """The interpreter whose environment the backend's model needs; the one egoworld runs in where it is empty. Not part of any digest."""

    @field_validator("python")
    @classmethod
    def _in_full(cls, python: str) -> str:
        return str(_expanded(python)) if python else python

    def options(self, backend: str) -> dict[str, Any]:
        """The options given for `backend`."""
        return dict((self.model_extra or {}).get(backend, {}))


def _check_stages(stages: dict[str, StageSettings]) -> dict[str, StageSettings]:
    """Refuse names that no stage or backend has, so that a misspelt name is not silently ignored."""
    for name, chosen in stages.items():
        if name not in operators.stages():
            raise ValueError(f"there is no stage {name!r}; there are {', '.join(operators.stages())}")
        if chosen.fallback and (chosen.fallback not in operators.backends(name) or chosen.fallback == chosen.backend):
            raise ValueError(f"stages.{name}.fallback: want another of {', '.join(operators.backends(name))}, got {chosen.fallback!r}")
        for key, value in (chosen.model_extra or {}).items():
            if key not in operators.backends(name):
                raise ValueError(f"stage {name} has no backend {key!r}; there are {', '.join(operators.backends(name))}")
            if not isinstance(value, dict):
                raise ValueError(f"stages.{name}.{key} must be a table of options")
    return stages


def _pool_folder() -> Path:
    """A folder of this user's own: in XDG_RUNTIME_DIR where there is one, else in /tmp. The broker checks whose it is before it uses it."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    # a relative one is to be ignored, says the XDG Base Directory Specification
    return base / "egoworld-pool" if base.is_absolute() else Path(f"/tmp/egoworld-pool-{os.getuid()}")  # noqa: S108


def _check_pool(kind: str) -> str:
    known = [*POOLS, *plugins.found(plugins.POOLS, POOLS)]
    if kind not in known:
        raise ValueError(f"there is no pool {kind!r}; there are {', '.join(known)}")
    return kind


class PoolSettings(Section):
    """How clips are worked on. Not part of any digest."""

    kind: Annotated[str, AfterValidator(_check_pool)] = "broker"
    """`broker`: this host's workers, shared by all runs. `inline`: the process of the step, for debugging. Or what a package brings."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of a pool that a package brings, which checks them."""
    threads: Annotated[int, Field(ge=1)] = Field(default_factory=lambda: os.cpu_count() or 1)
    """Of the inline pool."""
    folder: Folder = Field(default_factory=_pool_folder)
    """Where the broker's socket is; this user's alone."""
    start: bool = True
    """Start a broker where none runs."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """CPU workers of a broker that is started; None: by the number of cores."""
    idle_exit_s: Annotated[float, Field(gt=0)] = 300.0
    """A broker that was started on demand ends when it has been idle for so long."""
    lost_after_s: Annotated[float, Field(ge=0)] = 120.0
    """How long to try to reach a broker before the step fails with PoolLost."""
    decode_on: DecodesOn = "cpu"
    """What decodes the frames of operators that compute on a GPU: `cuda` is its own decoder, whose frames are checked against the CPU's."""


def _check_recordings(given: dict[str, str]) -> dict[str, str]:
    """The given patterns beside those that are shipped; an empty one takes a shipped one out."""
    for name, pattern in given.items():
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"recordings.{name}: {pattern!r} is no regular expression: {error}") from error
        if pattern and "recording" not in groups:
            raise ValueError(f"recordings.{name}: want a group (?P<recording>...), got {pattern!r}")
    return {**given, **{name: pattern for name, pattern in PATTERNS.items() if name not in given}}


def _check_quality(quality: dict[str, dict[str, Bounds]]) -> dict[str, dict[str, Bounds]]:
    for stage, bounds in quality.items():
        known = [metric.name for metric in metrics(stage)]
        for name in bounds:
            if name not in known:
                raise ValueError(f"stage {stage} has no metric {name!r}; there are {', '.join(known) or 'none'}")
    return quality


class Settings(BaseSettings):
    """All settings of a run."""

    model_config = SettingsConfigDict(
        env_prefix=environment.PREFIX, env_nested_delimiter=environment.DELIMITER, extra="forbid", frozen=True
    )

    raw: Folder = Path("raw")
    lake: Folder = Path("output")
    run_id: str | None = None
    ledger: SecretStr | None = None
    """URL of the ledger's database, `postgresql://...` for several hosts; None is a file in the lake. Never shown."""
    sample_stride: Annotated[int, Field(ge=1)] = 1
    retry_after_s: tuple[Annotated[float, Field(ge=0)], ...] = (5.0, 15.0, 45.0)
    """Pauses before each retry of a clip whose error is transient. Not part of any digest."""
    scenes: SceneSettings = SceneSettings()
    camera: CameraSettings = CameraSettings()
    recordings: Annotated[dict[str, str], AfterValidator(_check_recordings)] = dict(PATTERNS)
    """Names that files of one recording share: regular expressions with a group `recording`, by name, tried in order, yours first."""
    stages: Annotated[dict[str, StageSettings], AfterValidator(_check_stages)] = {}
    quality: Annotated[dict[str, dict[str, Bounds]], AfterValidator(_check_quality)] = {}
    """Thresholds of quality metrics, by stage and metric. Not part of any digest: results do not depend on them."""
    drift: DriftSettings = DriftSettings()
    alerts: AlertSettings = AlertSettings()
    logs: LogSettings = LogSettings()
    pool: PoolSettings = PoolSettings()
    release: ReleaseSettings = ReleaseSettings()
    policy: PolicySettings = PolicySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then the profile; no other source."""
        return env_settings, init_settings


def load_settings(profile: str | Path | None = None) -> Settings:
    """Settings of a profile: a name shipped in `profiles/`, or the path of a TOML file; EGOWORLD_PROFILE, else `laptop`.

    Raises:
        StorageUnavailable: the profile is there and cannot be read now.
        BadSettings: the profile is not there or is no TOML, a setting is unknown or out of range, or an environment variable is read by nobody.
    """
    environment.check_names(Settings)
    profile = profile or os.environ.get("EGOWORLD_PROFILE") or "laptop"
    path = PROFILES / f"{profile}.toml" if str(profile).isidentifier() else Path(profile)
    try:
        path = path.expanduser()
        given = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, RuntimeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and (away := unreadable(error, path)) is not None:
            raise away from error
        known = sorted(p.stem for p in PROFILES.glob("*.toml"))
        if isinstance(error, FileNotFoundError):
            cure = f"{did_you_mean(str(profile), known)} Or name a TOML file"
            raise BadSettings(f"profile {profile}", "there is no such profile or file", cure) from error
        raise BadSettings(path, str(error), f"Name a TOML file, or one of the profiles {', '.join(known)}") from error
    try:
        made = Settings(**given)
        return made.model_copy(update={"raw": anchored(made.raw), "lake": _place_of_lake(made.lake)})
    except ValidationError as error:
        raise _at_fault(error, path, given) from error
    except SettingsError as error:
        [field] = [name for name in Settings.model_fields if f'"{name}"' in str(error)]
        variable = environment.variables_of([field])[0]
        raise BadSettings(f"environment variable {variable}", f"is no JSON: {os.environ[variable]!r}", _CURE) from error


def _place_of_lake(lake: Path) -> Path:
    """The lake's folder in full, if DuckDB can keep the catalog there: it takes what follows a ? for parameters of the path."""
    if "?" in str(place := anchored(lake)):
        raise BadSettings(
            f"lake {place}", "has a ? in its path, where DuckDB can open no database", "Name another folder: setting lake, or EGOWORLD_LAKE"
        )
    return place


def _at_fault(error: ValidationError, path: Path, given: dict[str, Any]) -> BadSettings:
    """The first error, and the variable or the profile that it comes from."""
    first = first_fault(error)
    where, reason, cure = ".".join(str(p) for p in first["loc"]), first["msg"], _CURE
    if first["type"] == "extra_forbidden" and (near := difflib.get_close_matches(str(first["loc"][-1]), _names_at(first["loc"][:-1]), 1)):
        reason, cure = "there is no such setting", f"Did you mean {near[0]}? {_CURE}"
    variables = environment.variables_of(first["loc"])
    if not variables or _fails_alone(given, first["loc"]):
        return BadSettings(f"{path}, setting {where}", reason, cure)
    return BadSettings(f"environment variable {variables[0]}, setting {where}", reason, cure)


def _fails_alone(given: dict[str, Any], location: tuple[int | str, ...]) -> bool:
    """Whether the profile has an error at that place without the environment."""
    try:
        _ProfileAlone(**given)
    except ValidationError as error:
        return any(e["loc"] == location for e in error.errors())
    return False


class _ProfileAlone(Settings):
    """Settings that no environment variable gives."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *others: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The profile alone."""
        return (init_settings,)


def _names_at(location: tuple[int | str, ...]) -> list[str]:
    """Names of the settings in a section; none where it is no section."""
    section: Any = Settings
    for part in location:
        field = section.model_fields.get(part)
        section = field.annotation if field else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
    return list(section.model_fields)
