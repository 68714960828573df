"""From words to a planned cell: what exists, what can meet, and what identifies it; nothing heavy is imported."""
