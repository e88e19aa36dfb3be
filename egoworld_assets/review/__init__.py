"""The review page, `egoworld review`: what a run did, what is wrong with it, and where each number comes from (ADR 66)."""
