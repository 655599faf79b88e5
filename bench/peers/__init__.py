"""What Forebay is measured beside, a file each: limiters (slots) and job libraries."""
