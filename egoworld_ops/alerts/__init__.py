"""Alerts that leave the platform: what one says, when it is due, and how it is sent. What there is to say, `egoworld_assets/alerting.py` finds."""
