"""What a stage is, and the protocol every backend follows. No backend code belongs here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from egoworld_ops.contract.quality import Metric
from egoworld_ops.contract.references import Parent
from egoworld_ops.contract.schema import Table
from egoworld_ops.operators import accelerator
from egoworld_ops.types import Camera, Clip, Frame
from egoworld_ops.video.sidecar import Sidecar

NEVER: Literal["never"] = "never"
"""The value, and the default, of an option that lets a backend read a further table where it is another one."""


@dataclass(frozen=True, slots=True)
class ReadByOption:
    """A further table of the clip that backends of a stage read where their option says so.

    Args:
        table: the stage that makes it.
        option: of a backend; one that has it reads the table unless it is `NEVER`.
    """

    table: str
    option: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the chain. Its name is also the name of its table, its asset and its folder under `operators/`.

    Args:
        name: the stage.
        doc: what it does, one sentence.
        inputs: stages whose tables of the same clip it reads.
        default_backend: used where the settings name none.
        table: the contract of its table, which has the stage's name; made of `schema.per_frame` columns.
        sidecar: sections of the sidecar it reads (`camera`, `objects`).
        metrics: what is measured of its rows.
        parents: which of its rows depend on rows of another table of the clip.
        sample: rows that keep the contract, without the columns that name clip and frame: for tests and as an example.
        optional: further stages whose tables of the same clip a backend reads where its options say so; only then they are in its digest, and it
            waits for them. See docs/adr/0072.
        handed_on: whether a clip's table may depend on that of the clip before it, see `Operator.continues`.
    """

    name: str
    doc: str
    inputs: tuple[str, ...]
    default_backend: str
    table: Table
    sidecar: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    parents: tuple[Parent, ...] = ()
    sample: tuple[Mapping[str, Any], ...] = ()
    handed_on: bool = False
    optional: tuple[ReadByOption, ...] = ()

    @property
    def above(self) -> tuple[str, ...]:
        """All stages whose tables its own may be made from."""
        return (*self.inputs, *(read.table for read in self.optional))


class BackendSettings(BaseModel):
    """Base of every backend's own settings: unknown names are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class ClipInput:
    """All that an operator gets for one clip.

    Args:
        clip: which frames of which video.
        tables: the clip's tables of the stages named in `Stage.inputs` and those it reads by option, as in the data contract; and under the stage's
            own name that of the clip before in its scene, where the operator `continues` it and it has one.
        sidecar: what a person said about the video.
        camera: intrinsics, with their source.
        sample_stride: frames from one processed frame to the next; `frames()` already obeys it. Frames whose index in the video is a multiple of
            it are processed, whatever clip they are in.
        open_frames: starts a fresh, lazy decode of the clip's frames.
        unseen: (H, W) bool, pixels of every frame that show nothing; only in a rectified view of a lens, see `operators.rectifying`.
        indexed_times: tells the times of the processed frames without decoding; nothing where that is not possible.
    """

    clip: Clip
    tables: Mapping[str, pa.Table]
    sidecar: Sidecar
    camera: Camera
    sample_stride: int
    open_frames: Callable[[], Iterator[Frame]]
    unseen: np.ndarray | None = None
    indexed_times: Callable[[], Mapping[int, float]] = dict

    def times_s(self) -> Mapping[int, float]:
        """The time of each processed frame, by its index; frames are decoded only where no packet index tells it."""
        return self.indexed_times() or {frame.index: frame.timestamp_s for frame in self.frames()}

    def frames(self) -> Iterator[Frame]:
        """Decode the clip's processed frames in order, one at a time, from its start. May be called again; there may be none."""
        return self.open_frames()


class Operator(ABC):
    """One backend of one stage. Its file under `operators/<stage>/` names the class `Backend`.

    An operator is built once per worker (weights load here) and then runs many clips. It keeps nothing from one clip to the next, so that the
    same input always gives the same table. It retries nothing: errors of the tree in `egoworld_ops.errors` say whether a retry helps.
    """

    version: ClassVar[str]
    """Increased whenever the same input gives another table. Part of the digest."""

    Settings: ClassVar[type[BackendSettings]] = BackendSettings

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions that its results depend on, beside numpy and pyarrow; each run records their versions."""

    seconds_per_frame: ClassVar[float] = 0.1
    """A guess, for planning until a pool has seen one clip."""

    handles_lenses: ClassVar[bool] = False
    """Whether `run` obeys the whole of `ClipInput.camera`, its lens included. Of a stage that reads the camera, a backend that does not is given
    no clip seen through a lens other than a pinhole: it is refused with `UnsupportedLens`."""

    runner: ClassVar[str] = ""
    """What runs it in a worker, if it is not run like the other operators: see `gpu_workers.worker.Runner`."""

    def __init__(self, settings: BackendSettings, threads: int) -> None:
        self.settings = settings
        self.threads = threads
        self.micro_batch = 1
        """Frames computed at once, if the operator can do that; halved when memory runs out."""

    @classmethod
    def device(cls, settings: BackendSettings) -> Literal["cpu", "cuda"]:
        """The device it computes on: the option `device`, where `auto` means what `accelerator.auto_device` says; without that option the CPU."""
        wanted = getattr(settings, "device", "cpu")
        return accelerator.auto_device() if wanted == "auto" else cast("Literal['cpu', 'cuda']", wanted)

    @classmethod
    def memory_mb(cls, settings: BackendSettings) -> int:
        """Memory of its device that it needs with these settings, for its model and one clip together, in MB; 0 if little."""
        return 0

    @classmethod
    def weights(cls, settings: BackendSettings) -> tuple[str, ...]:
        """Names in `egoworld_ops.models` of the weight files this backend loads with these settings."""
        return ()

    @classmethod
    def brought(cls, settings: BackendSettings) -> Mapping[str, Any]:
        """What installed packages provide by names in these settings, such as a robot, as JSON: it decides results, and is part of the digest."""
        return {}

    @classmethod
    def continues(cls, settings: BackendSettings) -> bool:
        """Whether it begins a clip with the table of the clip before in the same scene. Only of a stage that is `handed_on`. See docs/adr/0062."""
        return False

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Whether `run` reads frames of a clip with these input tables; only then are they decoded ahead."""
        return True

    @abstractmethod
    def run(self, item: ClipInput) -> pa.Table:
        """The stage's table for one clip, as the data contract has it; empty where there is nothing to find.

        Raises:
            EgoworldError: the clip cannot be processed.
        """
