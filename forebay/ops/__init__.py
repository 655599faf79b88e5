"""`forebay ops`: metrics, health, and a page that shows the fleet (spec 07, *Page*)."""
