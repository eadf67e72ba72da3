"""A day with a GPU: everything that only a GPU can show, in ten minutes, as a bundle of evidence."""
