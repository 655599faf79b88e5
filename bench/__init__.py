"""Evidence: costs of calls, and use and shares of capacity.

Rules: design 08, *Scenarios*.
"""
