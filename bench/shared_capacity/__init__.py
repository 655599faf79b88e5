"""A fleet that is told nothing beside one that is told the limit, against providers that refuse."""
