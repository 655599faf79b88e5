"""Two commits of this repository beside each other: ``python -m bench --baseline REF SCENARIO``."""
