"""Evidence: what a call costs, and how well capacity is used and shared.

Rules: design 08, *Scenarios*.
"""
