"""The proxy beside LiteLLM's: what each adds to a call, what a core carries, and a limit."""
