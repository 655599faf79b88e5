"""Evidence: what a call costs, and how well capacity is used and shared (spec 08)."""
