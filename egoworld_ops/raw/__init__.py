"""Raw files: finding them in a folder, and the record of what became of each."""
