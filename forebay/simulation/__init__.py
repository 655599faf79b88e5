"""The production Lua on a simulated clock: what `forebay replay` and the benches run on."""
