"""Whether the backends of a profile work on this machine: measured, compared with known truth, and written down. `egoworld accept` runs it once.

`measuring` runs the stages, `accuracy` compares them with the truth of the synthetic scene, `variants` runs them with other options, `report` writes.
"""
