"""`forebay replay`: recorded attempts again, under other settings (design 07)."""
