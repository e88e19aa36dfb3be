"""Raw files: finding them in a folder, and table `intake`, which says what became of each."""
