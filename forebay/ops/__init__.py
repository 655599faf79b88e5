"""`forebay ops`: metrics, health, and a page that shows the fleet (design 07, *Page*)."""
