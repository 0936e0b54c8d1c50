"""Programs of the tenfold workspace."""
