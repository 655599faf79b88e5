"""A fleet without knowledge of the limit beside one that registers it, at providers that refuse."""
