"""What is downstream of stages, so that tests of the chain hold for each new stage too."""

from egoworld_ops import operators


def below(*stages: str) -> set[str]:
    """The stages that read a table of these, or of a stage that does; without these themselves."""
    found = set(stages)
    for name, stage in operators.stages().items():
        if found & set(stage.inputs):
            found.add(name)
    return found - set(stages)
