"""Callers against simulated providers: the production Lua on a simulated clock."""
