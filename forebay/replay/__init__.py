"""`forebay replay`: recorded attempts again, under other settings (spec 07)."""
