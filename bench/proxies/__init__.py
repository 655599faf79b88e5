"""The proxy beside LiteLLM's: added latency, calls per core, and the use of a hidden limit."""
