"""Looking after a lake: finding damage, and removing what nobody needs."""
