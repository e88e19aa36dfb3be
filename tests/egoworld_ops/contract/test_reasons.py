"""A missing value has a sentence for people and a word of a short list for programs."""

import pytest

from egoworld_ops.contract import schema, validation
from egoworld_ops.contract.reasons import CURES, Reason
from tests.rows import sample_row

WITH_REASON = [name for name, table in schema.TABLES.items() if "reason_class" in (c.name for c in table.columns)]


def test_every_stage_with_a_reason_has_its_kind() -> None:
    assert set(WITH_REASON) == {"hand_pose", "fusion", "object_pose", "movement", "mapping", "camera", "depth"}
    for name in WITH_REASON:
        [column] = [c for c in schema.table(name).columns if c.name == "reason_class"]
        assert column.allowed == tuple(CURES)


@pytest.mark.parametrize("name", WITH_REASON)
@pytest.mark.parametrize("half", [{"reason": "lost"}, {"reason_class": "no_fit"}])
def test_a_reason_without_its_kind_breaks_the_contract(name: str, half: dict[str, str]) -> None:
    whole = sample_row(name, 3, reason="lost", reason_class="no_fit")
    assert not list(validation.violations(name, schema.from_rows(name, [whole])))
    broken = schema.from_rows(name, [sample_row(name, 3, **half)])
    assert "reason_class is null" in "; ".join(validation.violations(name, broken))


def test_a_reason_reads_as_its_sentence_and_knows_its_kind() -> None:
    reason = Reason("no_size", "no size is given")
    assert (str(reason), reason.columns()) == ("no size is given", {"reason": "no size is given", "reason_class": "no_size"})
    with pytest.raises(ValueError, match="no_size"):
        Reason("bad luck", "who knows")
