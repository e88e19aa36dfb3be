"""The `egoworld` command."""
