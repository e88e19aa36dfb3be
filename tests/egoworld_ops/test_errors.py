"""Errors name culprit, reason and cure, say whether a retry helps, and are safe to print."""

import errno

import pytest

from egoworld_ops import errors


def leaves(kind: type[errors.EgoworldError]) -> list[type[errors.EgoworldError]]:
    return [leaf for sub in kind.__subclasses__() for leaf in leaves(sub)] or [kind]


@pytest.mark.parametrize("kind", leaves(errors.EgoworldError))
def test_every_error_says_culprit_reason_and_cure(kind: type[errors.EgoworldError]) -> None:
    said = str(kind("a.mp4", "it is empty", "Copy it again"))
    assert said == "a.mp4: it is empty. Copy it again"
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__


def test_a_retry_helps_where_memory_a_disk_the_pool_or_a_file_being_written_is_at_fault_and_nowhere_else() -> None:
    retryable = {kind.__name__ for kind in leaves(errors.EgoworldError) if kind("a", "b", "c").retryable}
    assert retryable == {"InputChanged", "OutOfMemory", "PoolLost", "StorageUnavailable"}


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (MemoryError(), errors.OutOfMemory),
        (OSError(errno.ENOSPC, "full"), errors.StorageUnavailable),
        (OSError(errno.ENOENT, "gone"), errors.OperatorCrash),
        (ValueError("x"), errors.OperatorCrash),
        (errors.CorruptVideo("a", "b", "c"), errors.CorruptVideo),
    ],
)
def test_foreign_errors_are_classified(raised: Exception, kind: type[errors.EgoworldError]) -> None:
    assert type(errors.classify(raised, "clip 1")) is kind


def test_hostile_names_cannot_forge_log_lines() -> None:
    shown = errors.printable("a\nERROR: forged \x1b[31m \udcff" + "x" * 5000)
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert len(shown) == 2000
    shown.encode("utf-8")
