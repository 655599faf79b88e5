"""The peers that Forebay is measured beside, a file each: limiters and job libraries."""
