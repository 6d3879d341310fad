"""Files: those of others, read within limits; ours, written whole or not at all, locked while they are worked on."""
